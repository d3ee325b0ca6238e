import dataclasses

from mnasdet.evaluation.coco import MAP
from mnasdet.reporting.charts import charts
from mnasdet.search.chain import Chain
from mnasdet.search.trials.trial_store import Trial, TrialState
from tests.reporting.coins import Coins


def trial(number, accuracy=None, cost=None, reward=None, key=None):
    complete = accuracy is not None
    return Trial(
        number,
        (),
        "",
        key or str(number),
        0,
        state=TrialState.COMPLETE if complete else TrialState.FAILED,
        metrics={MAP: accuracy} if complete else {},
        accuracy=accuracy,
        cost=cost,
        reward=reward,
    )


def drawn(trials, best=None, space=None):
    strings = {trial.number: f"c{trial.number} r1 | " for trial in trials}
    return {chart.title: chart.figure for chart in charts(trials, best, strings, space)}


TRIALS = [
    trial(0, 0.2, 10.0, 0.10),
    trial(1),
    trial(2, 0.1, 20.0, 0.05),
    trial(3, 0.3, 15.0, 0.13),
    trial(4, 0.2, 10.0, 0.10, key="0"),
]


def test_frontier():
    scatter, line, level, star = drawn(TRIALS, TRIALS[3])["Accuracy and latency"].data
    assert (scatter.x, scatter.y) == ((10, 20, 15, 10), (0.2, 0.1, 0.3, 0.2))
    assert scatter.type == "scatter"
    assert (line.x, line.y, line.line.shape) == ((10, 15), (0.2, 0.3), "hv")
    # Out to the slowest trial.
    assert (level.x, level.y) == ((15, 20), (0.3, 0.3))
    assert tuple(star.customdata[0]) == (3, 0.13, "c3 r1 |")


def test_a_second_stage_descends_from_the_first():
    def child(number, group, accuracy, cost):
        return dataclasses.replace(trial(number, accuracy, cost, 0.1), tokens=(group, 0))

    # Group 0 starts from trial 3 and has two on its front, group 1 from trial 0 one.
    children = [child(5, 0, 0.4, 14.0), child(6, 1, 0.1, 9.0), child(7, 0, 0.1, 12.0)]
    trials = [*TRIALS, *children, child(8, 0, 0.1, 13.0)]
    chain = Chain(firsts=(0, 5), units=("ms", "ms"), unit="ms", groups=(3, 0))
    charted = charts(trials, children[0], {}, chain=chain)
    lines, first, second, *_ = charted[0].figure.data
    assert lines.x == (15, 12, None, 15, 14, None, 10, 9, None)
    assert lines.y == (0.3, 0.1, None, 0.3, 0.4, None, 0.2, 0.1, None)
    assert [mark[0] for mark in first.customdata] == [0, 2, 3, 4]
    assert [mark[0] for mark in second.customdata] == [5, 6, 7, 8]
    assert (first.name, second.name) == ("first stage", "second stage")
    # Rewards of two stages do not compare.
    assert charted[1].figure.data[0].x == (5, 6, 7, 8)


def test_reward_and_running_best():
    points, best, level = drawn(TRIALS)["Reward"].data
    assert points.x == (0, 2, 3, 4)
    assert points.y == (0.10, 0.05, 0.13, 0.10)
    assert best.y == (0.10, 0.10, 0.13, 0.13)
    assert (level.x, level.y) == ((4, 4.5), (0.13, 0.13))


def test_ticks_are_whole_trials():
    figures = drawn(TRIALS)
    for title in ("Reward", "Hypervolume", "Different architectures"):
        assert figures[title].layout.xaxis.dtick == 1, title
    # A step at the last trial is seen.
    assert figures["Reward"].layout.xaxis.range == (-0.5, 4.5)
    many = drawn([trial(i, 0.2, 10.0, 0.1) for i in range(40)])
    assert many["Reward"].layout.xaxis.dtick is None


def test_different_architectures_of_those_sampled():
    sampled, different = drawn(TRIALS)["Different architectures"].data
    assert sampled.y == (1, 2, 3, 4, 5)
    assert different.y == (1, 2, 3, 4, 4)


def test_hypervolume_by_hand():
    line, level = drawn(TRIALS)["Hypervolume"].data
    # Down to mAP 0 and out to 20 ms: 0.2 * 10, and 0.1 * 5 more by trial 3.
    assert [round(volume, 6) for volume in line.y] == [2.0, 2.0, 2.5, 2.5]
    assert (level.x, level.y) == ((4, 4.5), (line.y[-1],) * 2)


def test_charts_over_trials_need_two():
    assert drawn([]) == drawn([trial(0)]) == {}
    assert list(drawn([trial(0, 0.2, 10.0, 0.1)])) == ["Accuracy and latency"]


def test_many_points_are_drawn_by_webgl_with_all_that_lies_on_them():
    trials = [trial(i, 0.2, 10.0 + i, 0.1) for i in range(1001)]
    figures = drawn(trials, trials[0])
    for title in ("Accuracy and latency", "Reward"):
        assert {trace.type for trace in figures[title].data} == {"scattergl"}


def test_a_trial_without_a_string_is_drawn():
    (chart,) = charts([trial(0, 0.2, 10.0, 0.1)], None, {})
    assert tuple(chart.figure.data[0].customdata[0]) == (0, 0.1, "")


def test_entropy_of_failed_and_complete_trials():
    proposed = [(0, 0), (0, 1), (0, 0), (0, 0)]
    trials = [
        dataclasses.replace(trial(number, 0.2 if number else None, 10.0, 0.1), tokens=tokens)
        for number, tokens in enumerate(proposed)
    ]
    uniform, entropy = drawn(trials, space=Coins())["Entropy of the proposals"].data
    # Two trials a window; the second coin is both ways in the first two of three.
    assert entropy.x == (1, 2, 3)
    assert entropy.y == (0.5, 0.5, 0.0)
    # Two throws of a coin differ half of the time.
    assert 0.3 < uniform.y[0] < 0.7


def test_no_entropy_of_a_few_trials_or_without_their_space():
    trials = [dataclasses.replace(t, tokens=(0, 0)) for t in TRIALS]
    assert "Entropy of the proposals" not in drawn(trials[:3], space=Coins())
    assert "Entropy of the proposals" not in drawn(trials)

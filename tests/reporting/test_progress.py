import io

from mnasdet.evaluation.coco import MAP
from mnasdet.reporting.progress import TrialProgress
from mnasdet.search.trial_store import Trial, TrialState


class Clock:
    seconds = 1000.0

    def __call__(self):
        return self.seconds


def complete(number, reward, **changes):
    values = {
        "state": TrialState.COMPLETE,
        "metrics": {MAP: 0.31},
        "latency_ms": 12.34,
        "reward": reward,
    }
    return Trial(number, (), "", f"key {number}", 0, **(values | changes))


def failed(number, error):
    return Trial(number, (), "", f"key {number}", 0, state=TrialState.FAILED, error=error)


def told(num_trials, steps, **options):
    """The lines after `steps`: (seconds that pass, trial) or, of an earlier run, (None, trial)."""
    clock, stream = Clock(), io.StringIO()
    progress = TrialProgress(num_trials, stream=stream, clock=clock, **options)
    for seconds, trial in steps:
        if seconds is None:
            progress.replay(trial)
        else:
            clock.seconds += seconds
            progress(trial)
    return stream.getvalue().splitlines()


def test_multiply_adds_are_no_milliseconds():
    (line,) = told(1, [(1, complete(0, 0.15))], unit="G multiply-adds")
    assert "mAP 0.310  12.340 G multiply-adds  best" in line
    assert " ms" not in line


def test_one_line_a_trial():
    assert told(
        4,
        [
            (40, complete(0, 0.15)),
            (40, complete(1, 0.1234)),
            (1, complete(2, 0.15, duplicate_of=0)),
            (39, failed(3, "the loss is NaN\n at step 3")),
        ],
    ) == [
        "trial 1/4  reward 0.1500  mAP 0.310  12.3 ms  best 0.1500 (#0)"
        "  elapsed 40s  ETA 2m00s  duplicates 0  failures 0",
        "trial 2/4  reward 0.1234  mAP 0.310  12.3 ms  best 0.1500 (#0)"
        "  elapsed 1m20s  ETA 1m20s  duplicates 0  failures 0",
        "trial 3/4  reward 0.1500  mAP 0.310  12.3 ms  best 0.1500 (#0)"
        "  elapsed 1m21s  ETA 27s  duplicates 1  failures 0",
        "trial 4/4  FAILED: the loss is NaN at step 3  best 0.1500 (#0)"
        "  elapsed 2m00s  ETA 0s  duplicates 1  failures 1",
    ]


def test_nothing_is_best_while_all_fail():
    assert told(100, [(60, failed(0, "out of memory"))]) == [
        "trial 1/100  FAILED: out of memory  best -  elapsed 1m00s  ETA 1h39m"
        "  duplicates 0  failures 1"
    ]


def test_of_equal_rewards_the_first_trial_is_best():
    # Trial 1 finishes before trial 0.
    lines = told(2, [(1, complete(1, 0.5)), (1, complete(0, 0.5))])
    assert ["best 0.5000 (#1)" in lines[0], "best 0.5000 (#0)" in lines[1]] == [True, True]


def test_a_resumed_search_goes_by_its_own_pace():
    assert told(
        5,
        [
            (None, complete(0, 0.2)),
            (None, failed(1, "x")),
            (None, complete(2, 0.2, duplicate_of=0)),
            (10, complete(3, 0.1)),
        ],
    ) == [
        "resumed: 3 trials done",
        "trial 4/5  reward 0.1000  mAP 0.310  12.3 ms  best 0.2000 (#0)"
        "  elapsed 10s  ETA 10s  duplicates 1  failures 1",
    ]


def test_a_search_that_was_done_already():
    assert told(1, [(None, complete(0, 0.2))]) == ["resumed: 1 trial done"]


def test_rejected_trials_are_counted_from_the_first_one_on():
    rejected = Trial(1, (), "", "key 1", 0, state=TrialState.REJECTED, error="9 ms are over 8")
    lines = told(2, [(10, complete(0, 0.5)), (10, rejected)])
    assert lines[0].endswith("failures 0")
    assert lines[1].startswith("trial 2/2  REJECTED: 9 ms are over 8  best 0.5000 (#0)")
    assert lines[1].endswith("failures 0  rejected 1")


def test_tensorboard(tmp_path):
    import tensorflow as tf

    progress = TrialProgress(3, stream=io.StringIO(), summary_dir=tmp_path)
    progress.replay(complete(0, 0.5))
    progress(complete(1, 0.25, duplicate_of=0))
    progress(failed(2, "x"))
    (events,) = tmp_path.iterdir()
    scalars = {
        (event.step, value.tag): value.simple_value
        for event in tf.compat.v1.train.summary_iterator(str(events))
        for value in event.summary.value
    }
    assert {key: round(value, 4) for key, value in scalars.items()} == {
        (1, "reward"): 0.25,
        (1, "mAP"): 0.31,
        (1, "latency_ms"): 12.34,
        (1, "best_reward"): 0.5,
        (1, "hypervolume"): 0.0,
        (1, "duplicates"): 1,
        (1, "failures"): 0,
        (1, "rejected"): 0,
        (2, "best_reward"): 0.5,
        (2, "hypervolume"): 0.0,
        (2, "duplicates"): 1,
        (2, "failures"): 1,
        (2, "rejected"): 0,
    }

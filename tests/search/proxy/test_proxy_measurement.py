"""The trainings behind a proxy's quality, with children that take no training."""

import contextlib
import dataclasses
import datetime
import math

import pytest

from mnasdet import config
from mnasdet.errors import UserError
from mnasdet.evaluation.coco import MAP
from mnasdet.protos import pipeline_pb2
from mnasdet.search.child import Outcome, trained
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.latency import MultiplyAdds
from mnasdet.search.limits import Limits
from mnasdet.search.proxy import proxy_measurement
from mnasdet.search.proxy.proxy_measurement import Series, sample
from mnasdet.search.trials.trial_store import TrialState, list_searches
from tests.search import cheap_children
from tests.search_spaces.architectures import mnasfpn_space


@pytest.fixture
def pipeline():
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.model.architecture_name = "mobilenet_v2_mnasfpn"
    pipeline.model.ssd.num_classes = 3
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.height = 64
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.width = 64
    return pipeline


@pytest.fixture
def space(pipeline):
    return mnasfpn_space(
        config.resolve(pipeline).architecture,
        channels=[16],
        expanded_channels=[16, 32],
        kernel_sizes=[3],
        repeats=1,
        num_internal_blocks=0,
    )


def test_samples_are_different_networks_of_the_space(pipeline, space):
    found = sample(pipeline, space, 8, seed=3)
    assert len({trial.key for trial in found}) == 8
    assert [trial.number for trial in found] == list(range(8))
    assert [trial.seed for trial in found] == [3 + 1000 * n for n in range(8)]
    for trial in found:
        space.validate(trial.tokens)
        assert trial.metrics["multiply_adds"] > 0
    assert sample(pipeline, space, 5, seed=3) == found[:5]
    assert sample(pipeline, space, 5, seed=4) != found[:5]


def test_samples_keep_the_limits_of_the_search(pipeline, space):
    everything = sample(pipeline, space, 12, seed=0)
    sizes = sorted(trial.metrics["multiply_adds"] for trial in everything)
    for limits in (
        Limits(max_multiply_adds=sizes[5]),
        Limits(max_cost=sizes[5] / 1e9),
    ):
        found = sample(pipeline, space, 4, 0, limits, MultiplyAdds())
        assert max(trial.metrics["multiply_adds"] for trial in found) <= sizes[5]


def test_a_space_with_too_few_networks(pipeline):
    space = mnasfpn_space(
        config.resolve(pipeline).architecture,
        channels=[16],
        expanded_channels=[16],
        kernel_sizes=[3],
        repeats=1,
        num_internal_blocks=0,
    )
    with pytest.raises(UserError, match="seems to have only 0 different networks within the lim"):
        sample(pipeline, space, 2, seed=0, limits=Limits(max_params=1))


def open_all(stack, pipeline, space, folder, count=4, num_seeds=2):
    architectures = sample(pipeline, space, count, seed=0)
    names = [*(f"proxy_{n}" for n in range(num_seeds)), "long"]
    return [
        stack.enter_context(
            contextlib.closing(Series(folder / "proxy.db", name, pipeline, architectures))
        )
        for name in names
    ]


def train(pipeline, space, folder, child=cheap_children.accuracy, **sizes):
    """All series when they are done, and how many trainings that took."""
    tasks = []

    def counted(task):
        tasks.append(task)
        return child(task)

    with contextlib.ExitStack() as stack:
        series = open_all(stack, pipeline, space, folder, **sizes)
        proxy_measurement.run(series, ThisProcess(counted))
        return series, tasks


def test_every_architecture_is_trained_with_every_seed_and_for_long(pipeline, space, tmp_path):
    (first, second, long), tasks = train(pipeline, space, tmp_path)
    seeds = [[trial.seed for trial in one.trials] for one in (first, second, long)]
    assert seeds == [[0, 1000, 2000, 3000], [1, 1001, 2001, 3001], [999, 1999, 2999, 3999]]
    assert [task.seed for task in tasks] == [seed for one in seeds for seed in one]
    for one in (first, second, long):
        for trial in one.trials:
            (task,) = (t for t in tasks if t.seed == trial.seed)
            assert task.architecture == trial.architecture
            expected = cheap_children.accuracy(task).metrics[MAP]
            assert one.accuracies[trial.number] == trial.metrics[MAP] == expected
            assert trial.state is TrialState.COMPLETE
            assert trial.started <= trial.finished
    summaries = list_searches(tmp_path / "proxy.db")
    assert [summary.name for summary in summaries] == ["proxy_0", "proxy_1", "long"]
    assert {summary.counts[TrialState.COMPLETE] for summary in summaries} == {4}


def test_interrupted_it_goes_on(pipeline, space, tmp_path):
    class Interrupted(Exception):
        pass

    started = []

    def child(task):
        started.append(task)
        if len(started) == 6:
            raise Interrupted
        return cheap_children.accuracy(task)

    with pytest.raises(Interrupted):
        train(pipeline, space, tmp_path, child)
    resumed, tasks = train(pipeline, space, tmp_path)
    assert [task.seed for task in tasks] == [1001, 2001, 3001, 999, 1999, 2999, 3999]
    (tmp_path / "whole").mkdir()
    whole, _ = train(pipeline, space, tmp_path / "whole")
    assert [one.accuracies for one in resumed] == [one.accuracies for one in whole]
    assert train(pipeline, space, tmp_path)[1] == []


def test_more_architectures_and_seeds_are_added(pipeline, space, tmp_path):
    train(pipeline, space, tmp_path)
    _, tasks = train(pipeline, space, tmp_path, count=5, num_seeds=3)
    assert [task.seed for task in tasks] == [4000, 4001, 2, 1002, 2002, 3002, 4002, 4999]
    # Fewer are looked at alone.
    series, tasks = train(pipeline, space, tmp_path, count=3, num_seeds=1)
    assert tasks == []
    assert [len(one.trials) for one in series] == [3, 3]


def test_other_architectures_are_refused(pipeline, space, tmp_path):
    train(pipeline, space, tmp_path)
    other = sample(pipeline, space, 4, seed=1)
    with pytest.raises(UserError, match="proxy_0 holds other architectures"):
        Series(tmp_path / "proxy.db", "proxy_0", pipeline, other)


def test_failed_and_rejected_trainings_have_no_accuracy(pipeline, space, tmp_path):
    def child(task):
        if task.seed == 1000:
            return Outcome(error="training diverged")
        if task.seed == 2999:
            return Outcome(error="the file is too large", rejected=True)
        # pycocotools' -1.
        return trained({MAP: -1.0 if task.seed == 0 else 0.25}, MAP)

    (first, second, long), _ = train(pipeline, space, tmp_path, child)
    assert first.accuracies == [0, pytest.approx(math.nan, nan_ok=True), 0.25, 0.25]
    assert first.trials[1].state is TrialState.FAILED
    assert long.trials[2].state is TrialState.REJECTED
    entries = proxy_measurement.by_architecture([first, second], long)
    assert [entry["proxy_accuracies"] for entry in entries] == [
        [0, 0.25],
        [None, 0.25],
        [0.25, 0.25],
        [0.25, 0.25],
    ]
    assert [entry["long_accuracy"] for entry in entries] == [0.25, 0.25, None, 0.25]
    assert [entry["errors"] for entry in entries] == [
        [],
        ["training diverged"],
        ["the file is too large"],
        [],
    ]
    assert entries[0]["key"] == first.trials[0].key


def test_median_seconds(pipeline, space, tmp_path):
    series, _ = train(pipeline, space, tmp_path)
    begin = datetime.datetime(2025, 1, 1)
    for one, seconds in zip(series, ([1, 2, 30, 4], [5, 6, 7, 8], [9, 9, 9, 9]), strict=True):
        one.trials = [
            dataclasses.replace(
                trial, started=begin, finished=begin + datetime.timedelta(seconds=duration)
            )
            for trial, duration in zip(one.trials, seconds, strict=True)
        ]
    # The median of 1 2 4 5 6 7 8 30.
    assert proxy_measurement.median_seconds(series[:2]) == 5.5
    series[2].trials[0] = dataclasses.replace(series[2].trials[0], state=TrialState.FAILED)
    assert proxy_measurement.median_seconds(series[2:]) == 9
    assert proxy_measurement.median_seconds([]) is None

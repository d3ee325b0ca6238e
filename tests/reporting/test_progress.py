import io

import pytest
from google.protobuf import text_format

from mnasdet.errors import UserError
from mnasdet.evaluation.coco import MAP
from mnasdet.protos import pipeline_pb2
from mnasdet.reporting.progress import TrialProgress, last_training
from mnasdet.search.axes import Axes
from mnasdet.search.trials.trial_store import Trial, TrialState


class Clock:
    seconds = 1000.0

    def __call__(self):
        return self.seconds


def complete(number, reward, **changes):
    values = {
        "state": TrialState.COMPLETE,
        "metrics": {MAP: 0.31},
        "accuracy": 0.31,
        "cost": 12.34,
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
    (line,) = told(1, [(1, complete(0, 0.15))], axes=Axes(unit="G multiply-adds"))
    assert "mAP 0.310  12.34 G multiply-adds  best" in line
    assert " ms" not in line


def test_a_metric_has_the_name_that_people_have_for_it():
    (line,) = told(1, [(1, complete(0, 0.15))], axes=Axes("Classification/top_1"))
    assert "top-1 0.310  12.34 ms  best" in line


def test_one_line_a_trial():
    assert told(
        4,
        [
            (100, complete(1, 0.15)),
            (40, complete(0, 0.1234)),
            (1, complete(2, 0.15, duplicate_of=1)),
            (39, failed(3, "the loss is NaN\n at step 3")),
        ],
    ) == [
        # The first training has TensorFlow's start in it: nothing can be told of the others.
        "trial 1 (1 of 4 done)  reward 0.1500  mAP 0.310  12.34 ms  best 0.1500 (trial 1)"
        "  elapsed 1m40s  ETA -  duplicates 0  failures 0",
        "trial 0 (2 of 4 done)  reward 0.1234  mAP 0.310  12.34 ms  best 0.1500 (trial 1)"
        "  elapsed 2m20s  ETA 1m20s  duplicates 0  failures 0",
        # Two in 41 s.
        "trial 2 (3 of 4 done)  reward 0.1500  mAP 0.310  12.34 ms  best 0.1500 (trial 1)"
        "  elapsed 2m21s  ETA 20s  duplicates 1  failures 0",
        "trial 3 (4 of 4 done)  FAILED: the loss is NaN at step 3  best 0.1500 (trial 1)"
        "  elapsed 3m00s  ETA 0s  duplicates 1  failures 1",
    ]


def test_nothing_is_best_while_all_fail():
    assert told(100, [(60, failed(0, "out of memory")), (60, failed(1, "it again"))]) == [
        "trial 0 (1 of 100 done)  FAILED: out of memory  best -  elapsed 1m00s  ETA -"
        "  duplicates 0  failures 1",
        "trial 1 (2 of 100 done)  FAILED: it again  best -  elapsed 2m00s  ETA 1h38m"
        "  duplicates 0  failures 2",
    ]


def trained(number, seconds):
    return complete(number, 0.1, metrics={MAP: 0.31, "train_seconds": seconds})


def etas(lines):
    return [line.split("  ETA ")[1].split("  duplicates")[0] for line in lines]


def test_a_map_that_cannot_be_measured_is_no_number():
    (line,) = told(1, [(1, complete(0, 0.0, metrics={MAP: -1.0}))])
    assert "reward 0.0000  mAP -  12.34 ms" in line


def test_every_worker_has_a_first_training():
    steps = [(90, trained(0, 60)), (1, trained(1, 61)), (30, trained(2, 30)), (2, trained(3, 30))]
    # Two in 32 s when the two first ones are left out, and six are left.
    assert etas(told(10, steps, num_workers=2)) == ["-", "-", "3m30s", "1m36s"]


def test_rejected_trials_warm_no_worker():
    rejected = Trial(0, (), "", "key 0", 0, state=TrialState.REJECTED, error="9 ms are over 8")
    steps = [(1, rejected), (60, trained(1, 40)), (20, trained(2, 20))]
    assert etas(told(4, steps)) == ["-", "-", "20s"]


def test_the_retraining_is_in_the_eta_and_zero_never_stands_before_it():
    steps = [(90, trained(0, 60)), (20, trained(1, 15)), (20, trained(2, 17))]
    # The retraining is four children's, the median of which takes 15 s, then 16.
    assert etas(told(3, steps, last_training=4.0)) == [
        "-",
        "1m20s, 1m00s of it the retraining",
        "1m04s, 1m04s of it the retraining",
    ]
    without = [(90, failed(0, "x")), (20, failed(1, "y"))]
    assert etas(told(2, without, last_training=4.0)) == ["-", "0s and then the retraining"]


@pytest.mark.parametrize(
    ("retrain", "expected"), [("", 1.0), ("retrain_config { batch_size: 16 num_steps: 30 }", 12.0)]
)
def test_the_work_of_the_retraining(retrain, expected):
    text = f"train_config {{ batch_size: 4 num_steps: 10 }} search_config {{ {retrain} }}"
    pipeline = text_format.Parse(text, pipeline_pb2.TrainEvalPipelineConfig())
    assert last_training(pipeline) == expected


@pytest.mark.parametrize(
    ("cost", "shown"), [(1.3074, "1.307 ms"), (9.9996, "10.000 ms"), (12.344, "12.34 ms")]
)
def test_milliseconds_tell_trials_apart(cost, shown):
    (line,) = told(1, [(1, complete(0, 0.1, cost=cost))])
    assert f"mAP 0.310  {shown}  best" in line


def test_of_equal_rewards_the_first_trial_is_best():
    # Trial 1 finishes before trial 0.
    lines = told(2, [(1, complete(1, 0.5)), (1, complete(0, 0.5))])
    assert "best 0.5000 (trial 1)" in lines[0]
    assert "best 0.5000 (trial 0)" in lines[1]


def test_a_resumed_search_goes_by_its_own_pace():
    assert told(
        6,
        [
            (None, complete(0, 0.2)),
            (None, failed(1, "x")),
            (None, complete(2, 0.2, duplicate_of=0)),
            (10, complete(3, 0.1)),
            (7, complete(4, 0.1)),
        ],
    ) == [
        "resumed: 3 trials done",
        "trial 3 (4 of 6 done)  reward 0.1000  mAP 0.310  12.34 ms  best 0.2000 (trial 0)"
        "  elapsed 10s  ETA -  duplicates 1  failures 1",
        "trial 4 (5 of 6 done)  reward 0.1000  mAP 0.310  12.34 ms  best 0.2000 (trial 0)"
        "  elapsed 17s  ETA 7s  duplicates 1  failures 1",
    ]


def test_a_search_that_was_done_already():
    assert told(1, [(None, complete(0, 0.2))]) == ["resumed: 1 trial done"]


def test_rejected_trials_are_counted_from_the_first_one_on():
    rejected = Trial(1, (), "", "key 1", 0, state=TrialState.REJECTED, error="9 ms are over 8")
    lines = told(2, [(10, complete(0, 0.5)), (10, rejected)])
    assert lines[0].endswith("failures 0")
    assert lines[1].startswith("trial 1 (2 of 2 done)  REJECTED: 9 ms are over 8  best 0.5000")
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
        (1, "accuracy"): 0.31,
        (1, "cost"): 12.34,
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


def test_a_file_in_the_place_of_tensorboards_folder_is_named(tmp_path):
    (tmp_path / "tensorboard").touch()
    with pytest.raises(UserError, match="tensorboard: is a file; a folder is needed here"):
        TrialProgress(1, summary_dir=tmp_path / "tensorboard")

"""Trainings that end where they gain no more."""

import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import config
from mnasdet.evaluation.baseline import BASELINE_MAP
from mnasdet.evaluation.coco import MAP
from mnasdet.search import child
from mnasdet.training import checkpoints, trainer
from mnasdet.training.early_stopping import EarlyStopping


@pytest.mark.parametrize(
    ("min_gain", "values", "ends"),
    [
        (0.0, [0.1, 0.2, 0.2, 0.1], [False, False, False, True]),
        # A gain starts the count again.
        (0.0, [0.1, 0.1, 0.2, 0.1, 0.2], [False, False, False, False, True]),
        # Small gains count together.
        (0.1, [0.5, 0.55, 0.61, 0.69], [False, False, False, False]),
        (0.1, [0.5, 0.55, 0.6, 0.59], [False, False, True, True]),
        # pycocotools' value for no boxes.
        (0.0, [-1.0, -1.0, -1.0], [False, False, True]),
    ],
)
def test_two_evaluations_without_a_gain_end_it(min_gain, values, ends):
    stopping = EarlyStopping(2, min_gain)
    found = []
    for value in values:
        stopping.add(value)
        found.append(stopping.is_over)
    assert found == ends


def test_the_count_goes_on_with_the_weights(tmp_path):
    first = EarlyStopping(2)
    checkpoint = tf.train.Checkpoint()
    first.attach(checkpoint)
    for value in (0.5, 0.4):
        first.add(value)
    path = checkpoint.write(str(tmp_path / "ckpt-1"))
    second = EarlyStopping(2)
    second.attach(tf.train.Checkpoint(), path)
    second.add(0.5)
    assert second.is_over
    assert second.describe() == "none of the last 2 evaluations was above 0.5000"


def test_a_checkpoint_from_before_it_was_asked_for(tmp_path):
    path = tf.train.Checkpoint(step=tf.Variable(3)).write(str(tmp_path / "ckpt-1"))
    stopping = EarlyStopping(1)
    stopping.attach(tf.train.Checkpoint(), path)
    stopping.add(0.1)
    assert not stopping.is_over


@pytest.fixture
def stopping_pipeline(tiny_pipeline):
    """Nothing gains by 2 but the first evaluation, at step 2; so the next one is the last."""
    train = tiny_pipeline.train_config
    train.eval_every_n_steps = 2
    train.early_stopping.evaluations_without_gain = 1
    train.early_stopping.min_gain = 2
    return tiny_pipeline


def test_a_killed_child_of_a_search_ends_where_it_would_have_and_stays_ended(
    stopping_pipeline, tmp_path, caplog
):
    caplog.set_level("INFO", logger="absl")
    stopping_pipeline.train_config.num_steps = 3
    trainer.train(stopping_pipeline, tmp_path)
    stopping_pipeline.train_config.num_steps = 8
    # Without the evaluation before the kill, that of step 4 would be the first, and a gain.
    architecture = config.resolve(stopping_pipeline).architecture
    task = child.ChildTask(
        stopping_pipeline.SerializeToString(),
        text_format.MessageToString(architecture),
        seed=0,
        folder=str(tmp_path),
    )
    metrics = child.run(task).metrics
    assert metrics["step"] == 4
    assert "ended at step 4 of 8: none of the last 1 evaluations was above" in caplog.text
    # As at the end of any training.
    assert BASELINE_MAP in metrics
    assert checkpoints.find(tmp_path).endswith("ckpt-4")
    assert checkpoints.all_in(tmp_path / "best")
    again = trainer.train(stopping_pipeline, tmp_path)
    assert again["step"] == 4
    assert again[MAP] == metrics[MAP]

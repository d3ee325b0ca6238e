"""16-bit training: what computes in which numbers, and what becomes of gradients that overflow."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet.protos import train_pb2
from mnasdet.training import checkpoints, precision, runtime
from mnasdet.training.learner import Learner
from tests.training import two_replicas


def learner(train=""):
    """Returns the learner of a small detector, its task and its training's config."""
    runtime.seed_everything(0)
    train_config = text_format.Parse(two_replicas.TRAIN + train, train_pb2.TrainConfig())
    with precision.building(train_config):
        task = two_replicas.detector("", synchronized=False)
    return Learner(task, train_config), task, train_config


@pytest.mark.parametrize(
    ("train", "dtype"),
    [
        ("precision: BFLOAT16", tf.bfloat16),
        ("precision: FLOAT16 gradient_accumulation_steps: 2", tf.float16),
    ],
)
def test_layers_compute_in_16_bits_and_all_else_in_32(train, dtype):
    plain, *_ = learner(train.partition("FLOAT16")[2].strip())
    mixed, task, train_config = learner(train)
    raw = task.model.get_layer("backbone/conv")(tf.ones((1, 16, 16, 3)))
    assert raw.dtype == dtype
    assert {output.dtype for output in task.model(tf.ones((1, 16, 16, 3))).values()} == {tf.float32}
    of_plain, of_mixed = (checkpoints.variables_by_name(one.model) for one in (plain, mixed))
    assert {name: v.dtype for name, v in of_mixed.items()} == dict.fromkeys(of_plain, tf.float32)
    for batch in two_replicas.batches():
        expected, found = (
            {name: float(value) for name, value in one.update(batch).items()}
            for one in (plain, mixed)
        )
    # Eight bits of a number, over 20 steps.
    assert found["Loss/total_loss"] == pytest.approx(expected["Loss/total_loss"], rel=0.03)
    assert mixed.fault() == ""

    evaluated, update = precision.evaluated(
        task, train_config, lambda: two_replicas.detector("", synchronized=False)
    )
    update()
    for name, variable in checkpoints.variables_by_name(plain.model).items():
        variable.assign(of_mixed[name])
    image = tf.constant(np.random.default_rng(2).uniform(-1, 1, (2, 16, 16, 3)), tf.float32)
    for name, value in plain.model(image).items():
        np.testing.assert_array_equal(evaluated.model(image)[name], value)


def test_a_step_whose_gradients_overflow_is_left_out_and_halves_the_scale():
    mixed, *_ = learner("precision: FLOAT16")
    batch, *_ = two_replicas.batches()
    scale = mixed._optimizer._loss_scale.current_loss_scale
    scale.assign(2.0**40)
    before = [variable.numpy() for variable in mixed.model.trainable_variables]
    losses = mixed.update(batch)
    assert np.isfinite(float(losses["Loss/total_loss"]))
    for variable, value in zip(mixed.model.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert float(scale) == 2.0**39
    assert (mixed.step, mixed.fault()) == (1, "")
    scale.assign(2.0**10)
    mixed.update(batch)
    assert any(
        (v.numpy() != old).any()
        for v, old in zip(mixed.model.trainable_variables, before, strict=True)
    )


def test_a_checkpoint_has_the_names_and_types_of_one_in_float32(tmp_path):
    found = []
    for name in ("FLOAT32", "BFLOAT16"):
        some, *_ = learner(f"precision: {name}")
        prefix = some.checkpoint.write(str(tmp_path / name))
        found.append(tf.train.load_checkpoint(prefix).get_variable_to_dtype_map())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "FLOAT32"),
        # The OD API's field.
        ("use_bfloat16: true", "BFLOAT16"),
        ("use_bfloat16: true precision: FLOAT32", "FLOAT32"),
        ("precision: FLOAT16", "FLOAT16"),
    ],
)
def test_the_precision_of_a_config(text, expected):
    config = text_format.Parse(text, train_pb2.TrainConfig())
    assert precision.of_config(config) == train_pb2.TrainConfig.Precision.Value(expected)


def test_a_gradient_that_is_bad_at_every_scale_ends_the_training():
    """Else every step would be left out, and the training would learn nothing to its end."""
    scaling, *_ = learner("precision: FLOAT16")
    optimizer = scaling._optimizer
    bad = tf.constant(np.nan)
    assert precision.judged(optimizer, bad) == 0.0
    optimizer._loss_scale._current_loss_scale.assign(1.0)
    assert np.isnan(precision.judged(optimizer, bad))
    assert precision.judged(optimizer, tf.constant(3.0)) == 3.0

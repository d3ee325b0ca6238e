"""A batch in parts, side by side or one after the other, against the batch in one piece."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mnasdet.detectors.one_stage import Detector
from mnasdet.tasks import Loss
from mnasdet.training import parts
from tests.training.test_learner import SIDE, batch, learner, values

FROZEN = "freeze_batchnorm: true "
SUM = "normalize_loss_by_num_matches: false "


def after_three_steps(ssd, train, **arguments):
    """The losses of three steps, and the weights after them."""
    some = learner(ssd, train, **arguments)
    losses = [some.update(batch(8)) for _ in range(3)]
    return losses, values(some)


@pytest.mark.parametrize(
    ("ssd", "train"),
    [
        (FROZEN, "gradient_accumulation_steps: 4"),
        (FROZEN, "gradient_accumulation_steps: 2 parallel_parts: 2"),
        (FROZEN + SUM, "gradient_accumulation_steps: 8 gradient_clipping_by_norm: 0.5"),
    ],
)
def test_parts_make_the_step_of_the_whole_where_batch_norm_is_frozen(ssd, train):
    whole = "gradient_clipping_by_norm: 0.5" if "clipping" in train else ""
    losses, weights = after_three_steps(ssd, whole)
    of_parts, moved = after_three_steps(ssd, train)
    for expected, found in zip(losses, of_parts, strict=True):
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    for name, value in weights.items():
        np.testing.assert_allclose(moved[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_losses_with_normalizers_of_their_own_accumulate_as_well(monkeypatch):
    """A detector's losses share one normaliser; here one is divided by the images."""
    of_detector = Detector.losses

    def losses(self, batch):
        localization, classification = of_detector(self, batch).values()
        images = tf.cast(tf.shape(batch["image"])[0], tf.float32)
        return {"one": localization, "two": Loss(classification.total, images)}

    monkeypatch.setattr(Detector, "losses", losses)
    _, weights = after_three_steps(FROZEN, "")
    _, moved = after_three_steps(FROZEN, "gradient_accumulation_steps: 2", jit_compile=True)
    for name, value in weights.items():
        np.testing.assert_allclose(moved[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_losses_that_share_a_normalizer_need_one_pass_back():
    def losses(batch):
        shared = tf.reduce_sum(batch["x"])
        return {"a": Loss(shared, shared), "b": Loss(2 * shared, shared), "c": Loss(shared, 0.0)}

    one = {"x": tf.constant([1.0, 2.0])}
    for make in (
        parts.compiled(losses),
        lambda batch: parts.joined([losses(batch), losses(batch)]),
    ):
        a, b, c = make(one).values()
        assert a.normalizer is b.normalizer
        assert a.normalizer is not c.normalizer
        assert float(b.total) == 2 * float(a.total)


def test_the_network_is_traced_for_one_part_of_many(monkeypatch):
    sizes = []
    of_detector = Detector.losses

    def losses(self, batch):
        sizes.append(batch["image"].shape[0])
        return of_detector(self, batch)

    monkeypatch.setattr(Detector, "losses", losses)
    learner(FROZEN, "gradient_accumulation_steps: 8").update(batch(16))
    assert sizes == [2]


@pytest.mark.parametrize(
    "train",
    [
        "parallel_parts: 4",
        "gradient_accumulation_steps: 2 parallel_parts: 2",
    ],
)
def test_the_averages_of_batch_norm_move_once_a_step_by_the_mean_over_the_parts(train):
    some = learner(train=train)
    images = batch(8)["image"]
    inside = tf_keras.Model(some.model.input, some.model.get_layer("backbone/batch_norm").input)
    features = inside(images).numpy().reshape(4, -1, 4)
    some.update(batch(8))
    after = values(some)
    count = 2 * (SIDE // 2) ** 2
    # Keras counts the variance of a sample, without its mean.
    variances = features.var(axis=1) * count / (count - 1)
    np.testing.assert_allclose(
        after["backbone/batch_norm/moving_mean"], 0.5 * features.mean((0, 1)), rtol=1e-4
    )
    np.testing.assert_allclose(
        after["backbone/batch_norm/moving_variance"], 0.5 + 0.5 * variances.mean(0), rtol=1e-4
    )

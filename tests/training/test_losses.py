"""Losses against numpy."""

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.training.losses import DetectionLoss, sigmoid_focal_loss, smooth_l1
from mnasdet.training.targets import BACKGROUND, IGNORED


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (None, 0.0), (0.75, 1.5)])
def test_focal_loss_against_its_equation(alpha, gamma):
    logits = np.array([-3.0, -0.5, 0.0, 2.0, 5.0])
    for target in (0.0, 1.0):
        p = 1 / (1 + np.exp(-logits))
        p_t = p if target else 1 - p
        weight = 1.0 if alpha is None else (alpha if target else 1 - alpha)
        expected = -weight * (1 - p_t) ** gamma * np.log(p_t)
        actual = sigmoid_focal_loss(
            tf.constant(logits, tf.float32), tf.fill([5], target), alpha, gamma
        )
        np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_focal_loss_stays_finite_far_out():
    logits = tf.Variable([-200.0, 200.0])
    with tf.GradientTape() as tape:
        loss = sigmoid_focal_loss(logits, tf.constant([1.0, 0.0]), 0.25, 1.5)
    assert np.isfinite(loss).all()
    assert np.isfinite(tape.gradient(loss, logits)).all()


def test_smooth_l1_by_hand():
    actual = smooth_l1(tf.constant([0.0, 0.5, -1.0, 3.0]), 1.0)
    np.testing.assert_allclose(actual, [0.0, 0.125, 0.5, 2.5])
    np.testing.assert_allclose(smooth_l1(tf.constant([3.0]), 2.0), [2 * (3 - 1)])


def batch():
    class_targets = tf.constant([[1, BACKGROUND, IGNORED, 2]])
    box_targets = tf.zeros([1, 4, 4])
    box_encodings = tf.constant(np.full((1, 4, 4), 0.5), tf.float32)
    class_logits = tf.constant(np.full((1, 4, 3), -2.0), tf.float32)
    return box_encodings, class_logits, box_targets, class_targets


def test_normalised_by_matches_and_code_size():
    localization, classification = DetectionLoss(alpha=None, gamma=0.0)(*batch())
    # Two positive anchors with four errors of 0.5 each: 2 * 4 * 0.125 / 2 matches / 4.
    assert float(localization) == pytest.approx(0.125)
    # Three counted anchors of three logits: two logits have target 1, the background slot never.
    p = 1 / (1 + np.exp(2.0))
    assert float(classification) == pytest.approx((-2 * np.log(p) - 7 * np.log(1 - p)) / 2)


def test_weights_and_no_normalisation():
    loss = DetectionLoss(
        alpha=None,
        gamma=0.0,
        classification_weight=3.0,
        localization_weight=5.0,
        normalize_by_matches=False,
        normalize_by_code_size=False,
    )
    localization, classification = loss(*batch())
    assert float(localization) == pytest.approx(5 * 2 * 4 * 0.125)
    p = 1 / (1 + np.exp(2.0))
    assert float(classification) == pytest.approx(3 * (-2 * np.log(p) - 7 * np.log(1 - p)))


def test_no_object_at_all_is_no_division_by_zero():
    encodings, logits, targets, classes = batch()
    localization, classification = DetectionLoss()(
        encodings, logits, targets, tf.zeros_like(classes)
    )
    assert float(localization) == 0.0
    assert np.isfinite(classification)

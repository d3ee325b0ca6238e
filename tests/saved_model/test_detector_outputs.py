"""Tests detections in the padding, with values by hand; the rest is in test_saved_model.py."""

import numpy as np
import tensorflow as tf

from mnasdet.saved_model import detector_outputs


def test_detections_in_the_padding_are_left_out():
    # The picture is the upper half of the input.
    extents = tf.constant([[0.5, 1.0]])
    boxes = np.float32([[0.6, 0.2, 0.9, 0.4], [0.1, 0.2, 0.3, 0.4], [0.3, 0.5, 0.8, 1.0], [0] * 4])
    found = {
        "detection_boxes": tf.clip_by_value(detector_outputs._unpadded(boxes[None], extents), 0, 1),
        "detection_scores": tf.constant([[0.9, 0.8, 0.7, 0.6]]),
        "detection_multiclass_scores": tf.constant([[[1.0, 2.0], [3, 4], [5, 6], [7, 8]]]),
    }
    packed = detector_outputs._packed(found, tf.constant([3]))
    assert packed["num_detections"].numpy().tolist() == [2.0]
    np.testing.assert_allclose(
        packed["detection_boxes"][0],
        [[0.2, 0.2, 0.6, 0.4], [0.6, 0.5, 1.0, 1.0], [0] * 4, [0] * 4],
        atol=1e-6,
    )
    np.testing.assert_allclose(packed["detection_scores"], [[0.8, 0.7, 0, 0]])
    np.testing.assert_allclose(
        packed["detection_multiclass_scores"], [[[3, 4], [5, 6], [0, 0], [0, 0]]]
    )


def test_the_anchor_of_a_detection():
    boxes = np.float32([[-0.1, 0, 0.5, 0.5], [0, 0, 0.5, 0.5], [0.2, 0.2, 0.6, 0.6]])
    # Background, and two classes.
    scores = np.float32([[0, 0.3, 0.9], [0, 0.4, 0.3], [0, 0.9, 0.4]])
    found = {
        # Class 2 of the first, clipped; class 1 of the last; class 2 of the last; nothing.
        "detection_boxes": np.float32([[0, 0, 0.5, 0.5], boxes[2], boxes[2], [0] * 4])[None],
        "detection_classes": np.float32([[2, 1, 2, 0]]),
        "detection_scores": np.float32([[0.9, 0.9, 0.4, 0]]),
    }
    shared = tf.constant(boxes[None, :, None])
    indices = detector_outputs._anchor_indices(found, shared, scores[None])
    assert indices.numpy().tolist()[0][:3] == [0, 2, 2]


def test_the_region_of_a_detection_whose_classes_have_boxes_of_their_own():
    # Two regions, each with a box for either class; the same scores, so that boxes alone tell.
    boxes = np.float32([[[0, 0, 0.5, 0.5], [0, 0, 0.6, 0.6]], [[0, 0, 0.6, 0.6], [0, 0, 0.7, 0.7]]])
    scores = np.float32([[0, 0.8, 0.8], [0, 0.8, 0.8]])
    found = {
        "detection_boxes": np.float32([boxes[1, 0], boxes[0, 1], boxes[1, 1]])[None],
        "detection_classes": np.float32([[1, 2, 2]]),
        "detection_scores": np.float32([[0.8, 0.8, 0.8]]),
    }
    indices = detector_outputs._anchor_indices(found, tf.constant(boxes[None]), scores[None])
    assert indices.numpy().tolist() == [[1, 0, 1]]

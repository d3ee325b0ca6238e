"""Target assignment by hand, eager and inside tf.data."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet.detectors import box_coder
from mnasdet.detectors.targets import BACKGROUND, IGNORED, TargetAssigner, from_config, iou
from mnasdet.protos import ssd_pb2

# Four quarters of the image and a small anchor.
ANCHORS = np.array(
    [
        [0.0, 0.0, 0.5, 0.5],
        [0.0, 0.5, 0.5, 1.0],
        [0.5, 0.0, 1.0, 0.5],
        [0.5, 0.5, 1.0, 1.0],
        [0.0, 0.0, 0.1, 0.1],
    ],
    np.float32,
)
FIRST_QUARTER = [0.0, 0.0, 0.5, 0.5]
# Overlaps the second quarter by 0.4 * 0.5 / (0.25 + 0.2 - 0.2) = 0.8.
MOST_OF_SECOND = [0.1, 0.5, 0.5, 1.0]
TINY = [0.6, 0.6, 0.65, 0.65]


def assign(boxes, classes, in_tf_data=False, **arguments):
    assigner = TargetAssigner(ANCHORS, **arguments)
    boxes = tf.reshape(tf.constant(boxes, tf.float32), [-1, 4])
    classes = tf.constant(classes, tf.int32)
    if not in_tf_data:
        return assigner(boxes, classes)
    (targets,) = tf.data.Dataset.from_tensors((boxes, classes)).map(assigner)
    return targets


@pytest.mark.parametrize("in_tf_data", [False, True])
def test_matches_by_overlap(in_tf_data):
    classes, codes = assign([MOST_OF_SECOND, FIRST_QUARTER], [2, 1], in_tf_data)
    assert classes.numpy().tolist() == [1, 2, BACKGROUND, BACKGROUND, BACKGROUND]
    np.testing.assert_allclose(codes[0], np.zeros(4), atol=1e-4)
    decoded = box_coder.decode(codes[1], ANCHORS[1], box_coder.DEFAULT_SCALES)
    np.testing.assert_allclose(decoded, MOST_OF_SECOND, atol=1e-5)


def test_a_small_box_gets_its_best_anchor_only_when_forced():
    assert assign([TINY], [3])[0].numpy().tolist() == [0, 0, 0, 3, 0]
    assert assign([TINY], [3], force_match=False)[0].numpy().tolist() == [0, 0, 0, 0, 0]


def test_of_two_boxes_that_want_one_anchor_the_first_has_it():
    other = [0.7, 0.7, 0.75, 0.75]
    assert assign([TINY, other], [3, 2])[0].numpy()[3] == 3
    assert assign([other, TINY], [2, 3])[0].numpy()[3] == 2


def test_between_the_thresholds_is_ignored():
    classes, _ = assign(
        [MOST_OF_SECOND], [2], matched_threshold=0.9, unmatched_threshold=0.7, force_match=False
    )
    assert classes.numpy().tolist() == [0, IGNORED, 0, 0, 0]


@pytest.mark.parametrize("in_tf_data", [False, True])
def test_negatives_between_the_thresholds_ignored_below(in_tf_data):
    thresholds = {"matched_threshold": 0.9, "unmatched_threshold": 0.7, "negatives_lower": False}
    boxes = [FIRST_QUARTER, MOST_OF_SECOND]
    # Overlaps of 1, 0.8, 0, 0 and 0.04.
    classes, _ = assign(boxes, [1, 2], in_tf_data, force_match=False, **thresholds)
    assert classes.numpy().tolist() == [1, 0, IGNORED, IGNORED, IGNORED]
    # Forced, the second box takes its anchor.
    classes, _ = assign(boxes, [1, 2], in_tf_data, **thresholds)
    assert classes.numpy().tolist() == [1, 2, IGNORED, IGNORED, IGNORED]
    assert assign([], [], in_tf_data, **thresholds)[0].numpy().tolist() == [BACKGROUND] * 5


@pytest.mark.parametrize("in_tf_data", [False, True])
def test_without_thresholds_every_anchor_has_a_box(in_tf_data):
    thresholds = {"matched_threshold": 0.0, "unmatched_threshold": 0.0, "force_match": False}
    # Anchors that overlap nothing go to the first box.
    classes, _ = assign([MOST_OF_SECOND, FIRST_QUARTER], [2, 1], in_tf_data, **thresholds)
    assert classes.numpy().tolist() == [1, 2, 2, 2, 1]
    assert assign([], [], in_tf_data, **thresholds)[0].numpy().tolist() == [BACKGROUND] * 5


@pytest.mark.parametrize("in_tf_data", [False, True])
def test_an_image_without_boxes_is_all_background(in_tf_data):
    classes, codes = assign([], [], in_tf_data)
    assert classes.numpy().tolist() == [BACKGROUND] * 5
    assert np.isfinite(codes).all()


def test_iou_by_hand():
    overlap = iou(
        np.array([FIRST_QUARTER], np.float32), tf.constant([MOST_OF_SECOND, [0, 0, 1, 1.0]])
    )
    np.testing.assert_allclose(overlap, [[0.0, 0.25]])


def test_from_config():
    ssd = text_format.Parse(
        """
        matcher { argmax_matcher {
          matched_threshold: 0.75 unmatched_threshold: 0.25 negatives_lower_than_unmatched: false
          force_match_for_each_row: true use_matmul_gather: true
        } }
        box_coder { faster_rcnn_box_coder { y_scale: 1 x_scale: 2 height_scale: 3 width_scale: 4 } }
        """,
        ssd_pb2.Ssd(),
    )
    assert from_config(ssd, ANCHORS) == TargetAssigner(
        ANCHORS, 0.75, 0.25, False, True, (1.0, 2.0, 3.0, 4.0)
    )
    ssd.matcher.argmax_matcher.ignore_thresholds = True
    assigner = from_config(ssd, ANCHORS)
    assert (assigner.matched_threshold, assigner.unmatched_threshold) == (0.0, 0.0)


def test_a_box_is_forced_on_an_anchor_only_from_the_least_overlap_on():
    # The tiny box covers 0.0025 of a quarter's 0.25; the other 0.8 of the second quarter.
    arguments = {"matched_threshold": 0.9, "unmatched_threshold": 0.9}
    classes, _ = assign([TINY, MOST_OF_SECOND], [3, 2], least_forced=0.3, **arguments)
    assert classes.numpy().tolist() == [0, 2, 0, 0, 0]
    classes, _ = assign([TINY, MOST_OF_SECOND], [3, 2], least_forced=0.009, **arguments)
    assert classes.numpy().tolist() == [0, 2, 0, 3, 0]

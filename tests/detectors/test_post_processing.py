"""Scores and boxes by hand, non-maximum suppression against a plain numpy one."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet.detectors import box_coder
from mnasdet.detectors.post_processing import PostProcessing, from_config
from mnasdet.protos import box_predictor_pb2, ssd_pb2

ANCHORS = np.array([[0.0, 0.0, 0.2, 0.2]], np.float32)


def iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    shared = height * width
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return shared / (area(a) + area(b) - shared)


def suppress(boxes, scores, threshold):
    kept = []
    for i in np.argsort(-scores):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def predictions(boxes, scores):
    """Raw predictions that stand for these boxes and class scores, and their anchors."""
    anchors = np.tile(ANCHORS, (len(boxes), 1))
    codes = box_coder.encode(boxes, anchors, box_coder.DEFAULT_SCALES)
    logits = np.log(scores / (1 - scores))
    background = np.full((len(boxes), 1), 9.0)
    logits = np.concatenate([background, logits], axis=1).astype(np.float32)
    return codes[None], tf.constant(logits[None]), anchors


def random_boxes(count=40):
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.6, (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.1, 0.4, (count, 2))], axis=1)
    return boxes.astype(np.float32), rng.uniform(0.05, 0.95, (count, 2))


def test_only_the_best_scores_of_an_image_take_part():
    """Over all anchors and classes, and what is suppressed of them leaves a gap."""
    boxes, scores = random_boxes()
    best = np.sort(scores.ravel())[-10]
    for class_agnostic in (False, True):
        limited = PostProcessing(
            iou_threshold=0.4, max_candidates=10, class_agnostic=class_agnostic
        )
        found = limited(*predictions(boxes, scores))
        threshold = (best + np.sort(scores.ravel())[-11]) / 2
        expected = PostProcessing(
            iou_threshold=0.4, score_threshold=float(threshold), class_agnostic=class_agnostic
        )(*predictions(boxes, scores))
        assert 0 < int(found["num_detections"][0]) < 10
        for name, value in expected.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_each_image_has_candidates_of_its_own():
    boxes, scores = random_boxes()
    codes, logits, anchors = predictions(boxes, scores)
    two = tf.concat([logits, logits - 3], axis=0), np.concatenate([codes, codes])
    found = PostProcessing(max_candidates=10)(two[1], two[0], anchors)
    count = found["num_detections"].numpy()
    assert count[0] == count[1] > 0
    # More candidates than there are scores are all of them.
    everything = PostProcessing()(codes, logits, anchors)["num_detections"]
    assert (
        PostProcessing(max_candidates=1000)(codes, logits, anchors)["num_detections"] == everything
    )


def test_per_class_against_numpy():
    boxes, scores = random_boxes()
    found = PostProcessing(iou_threshold=0.4)(*predictions(boxes, scores))
    expected = sorted(
        ((scores[i, c], c + 1, i) for c in (0, 1) for i in suppress(boxes, scores[:, c], 0.4)),
        reverse=True,
    )
    count = int(found["num_detections"][0])
    assert count == len(expected)
    np.testing.assert_allclose(
        found["detection_scores"][0, :count], [row[0] for row in expected], atol=1e-5
    )
    np.testing.assert_array_equal(
        found["detection_classes"][0, :count], [row[1] for row in expected]
    )
    np.testing.assert_allclose(
        found["detection_boxes"][0, :count], [boxes[row[2]] for row in expected], atol=1e-5
    )
    assert not np.any(found["detection_classes"][0, count:])


def test_class_agnostic_against_numpy():
    boxes, scores = random_boxes()
    found = PostProcessing(iou_threshold=0.4, class_agnostic=True)(*predictions(boxes, scores))
    kept = suppress(boxes, scores.max(axis=1), 0.4)
    count = int(found["num_detections"][0])
    assert count == len(kept)
    np.testing.assert_array_equal(
        found["detection_classes"][0, :count], scores.argmax(axis=1)[kept] + 1
    )


OUTSIDE = {
    "right of the image": [0.2, 1.1, 0.4, 1.3],
    "above the image": [-0.3, 0.2, 0.0, 0.4],
    "of no height": [0.5, 0.2, 0.5, 0.4],
}


@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("where", OUTSIDE)
def test_boxes_without_area_take_no_places(class_agnostic, where):
    """Two places: the best two boxes are outside, one of the next two is cut at the edge."""
    anchors = np.array(
        [OUTSIDE[where], OUTSIDE[where], [0.9, 0.9, 1.1, 1.2], [0.1, 0.1, 0.3, 0.3]], np.float32
    )
    scores = tf.constant([[[0, 0.9, 0.1], [0, 0.1, 0.8], [0, 0.7, 0.1], [0, 0.1, 0.6]]])
    nms = PostProcessing(
        score_converter="identity", class_agnostic=class_agnostic, max_detections=2
    )
    found = nms(tf.zeros((1, 4, 4)), scores, anchors)
    np.testing.assert_allclose(found["detection_scores"], [[0.7, 0.6]], rtol=1e-6)
    np.testing.assert_allclose(
        found["detection_boxes"][0], [[0.9, 0.9, 1, 1], [0.1, 0.1, 0.3, 0.3]], atol=1e-6
    )
    np.testing.assert_array_equal(found["detection_classes"], [[1, 2]])
    np.testing.assert_array_equal(found["num_detections"], [2])


def test_limits_and_score_threshold():
    boxes, scores = random_boxes()
    nms = PostProcessing(score_threshold=0.5, max_detections=5, max_detections_per_class=3)
    found = nms(*predictions(boxes, scores))
    assert found["detection_boxes"].shape == (1, 5, 4)
    count = int(found["num_detections"][0])
    classes = found["detection_classes"].numpy()[0, :count]
    assert max(np.bincount(classes.astype(int))) <= 3
    assert found["detection_scores"].numpy()[0, :count].min() >= 0.5


def logits_of(rows):
    """Raw class logits [1, anchors, slots] with boxes apart from one another, and their anchors."""
    anchors = np.array([[0.1 * i, 0.0, 0.1 * i + 0.05, 0.1] for i in range(len(rows))], np.float32)
    return tf.zeros((1, len(rows), 4)), tf.constant([rows], tf.float32), anchors


def test_softmax_counts_the_background_in_slot_0():
    rows = np.log([[0.5, 0.3, 0.2], [0.1, 0.15, 0.75]])
    found = PostProcessing(score_converter="softmax")(*logits_of(rows + 3.0))
    np.testing.assert_allclose(found["detection_scores"][0, :4], [0.75, 0.3, 0.2, 0.15], rtol=1e-5)
    np.testing.assert_array_equal(found["detection_classes"][0, :4], [2, 1, 2, 1])
    assert found["num_detections"][0] == 4


def test_identity_takes_scores_as_they_are():
    rows = [[9.0, 0.25, -1.0], [9.0, 2.0, 0.0]]
    found = PostProcessing(score_converter="identity", score_threshold=0.0)(*logits_of(rows))
    assert found["num_detections"][0] == 2
    np.testing.assert_allclose(found["detection_scores"][0, :3], [2.0, 0.25, 0.0])
    np.testing.assert_array_equal(found["detection_classes"][0, :3], [1, 1, 0])


def test_logit_scale_divides_the_logits():
    found = PostProcessing(logit_scale=2.0)(*logits_of([[0.0, 4.0]]))
    np.testing.assert_allclose(found["detection_scores"][0, 0], 1 / (1 + np.exp(-2)), rtol=1e-5)


def test_box_encodings_are_clipped():
    anchors = np.array([[0.4, 0.4, 0.6, 0.6]], np.float32)
    # 20 / 10 anchor sides down, clipped to 1 / 10; 5 / 5 wider by e, clipped to 1 / 5.
    codes = tf.constant([[[20.0, 0.0, 0.0, 5.0]]])
    found = PostProcessing(box_clip_range=(-1.0, 1.0))(codes, tf.constant([[[0.0, 1.0]]]), anchors)
    half = 0.1 * np.exp(0.2)
    expected = [0.42, 0.5 - half, 0.62, 0.5 + half]
    np.testing.assert_allclose(found["detection_boxes"][0, 0], expected, rtol=1e-5)


def test_equal_scores_keep_their_own_classes():
    rows = [[0.0, 1.0, 2.0], [0.0, 2.0, 1.0], [0.0, 2.0, 1.0]]
    found = PostProcessing(class_agnostic=True)(*logits_of(rows))
    boxes = found["detection_boxes"].numpy()[0, :3]
    classes = dict(zip(boxes[:, 0].round(1), found["detection_classes"].numpy()[0], strict=False))
    assert classes == {np.float32(0.0): 2, np.float32(0.1): 1, np.float32(0.2): 1}


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_a_batch_in_a_graph_is_padded_image_by_image(class_agnostic):
    nms = PostProcessing(class_agnostic=class_agnostic, max_detections=3, score_threshold=0.5)
    codes, _, anchors = logits_of([[0.0, 0.0]] * 2)
    logits = tf.constant([[[0.0, 1.0], [0.0, 3.0]], [[0.0, -1.0], [0.0, 2.0]]])
    found = tf.function(nms)(tf.tile(codes, (2, 1, 1)), logits, anchors)
    assert {name: tuple(value.shape) for name, value in found.items()} == {
        "detection_boxes": (2, 3, 4),
        "detection_scores": (2, 3),
        "detection_classes": (2, 3),
        "num_detections": (2,),
    }
    np.testing.assert_array_equal(found["num_detections"], [2, 1])
    np.testing.assert_array_equal(found["detection_classes"], [[1, 1, 0], [1, 0, 0]])
    second = anchors[1]
    expected = [[second, anchors[0], np.zeros(4)], [second, np.zeros(4), np.zeros(4)]]
    np.testing.assert_allclose(found["detection_boxes"], expected, atol=1e-6)


def test_from_config():
    ssd = text_format.Parse(
        """
        box_coder { faster_rcnn_box_coder { y_scale: 1 x_scale: 2 height_scale: 3 width_scale: 4 } }
        box_predictor {
          convolutional_box_predictor { box_encodings_clip_range { min: -10 max: 5 } }
        }
        post_processing {
          score_converter: SOFTMAX
          logit_scale: 0.5
          batch_non_max_suppression {
            score_threshold: 0.25
            iou_threshold: 0.5
            max_detections_per_class: 7
            max_total_detections: 9
            use_class_agnostic_nms: true
            use_static_shapes: true
          }
        }
        """,
        ssd_pb2.Ssd(),
    )
    expected = PostProcessing(
        score_threshold=0.25,
        iou_threshold=0.5,
        max_detections_per_class=7,
        max_detections=9,
        class_agnostic=True,
        score_converter="softmax",
        logit_scale=0.5,
        box_scales=(1, 2, 3, 4),
        box_clip_range=(-10, 5),
    )
    assert from_config(ssd) == expected


def test_from_config_with_the_architectures_predictor():
    predictor = box_predictor_pb2.BoxPredictor()
    assert from_config(ssd_pb2.Ssd(), predictor).box_clip_range is None
    predictor.convolutional_box_predictor.box_encodings_clip_range.max = 5
    assert from_config(ssd_pb2.Ssd(), predictor).box_clip_range == (0, 5)
    assert from_config(ssd_pb2.Ssd()).score_converter == "identity"


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_classes_may_have_boxes_of_their_own(class_agnostic):
    """Boxes of two classes, the same as twice as many anchors with one class each."""
    boxes, scores = random_boxes()
    others = np.roll(boxes, 7, axis=0)
    # Where a location counts with its best class alone, the other class has no score.
    if class_agnostic:
        scores[np.arange(len(scores)), scores.argmin(1)] = 1e-9
    codes, logits, anchors = predictions(boxes, scores)
    of_others = box_coder.encode(others, anchors, box_coder.DEFAULT_SCALES)
    post_process = PostProcessing(
        iou_threshold=0.4, score_threshold=1e-6, class_agnostic=class_agnostic
    )
    # Each image has anchors of its own, as regions have.
    found = post_process(tf.stack([codes, of_others[None]], axis=2), logits, anchors[None])
    one_each = np.concatenate([scores * [1, 0], scores * [0, 1]]) + 1e-9
    codes, logits, anchors = predictions(np.concatenate([boxes, others]), one_each)
    expected = post_process(codes, logits, anchors)
    assert int(found["num_detections"][0]) > 5
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, err_msg=name)

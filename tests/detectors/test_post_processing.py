"""Non-maximum suppression against a plain numpy one."""

import numpy as np
import tensorflow as tf

from mnasdet.detectors import box_coder
from mnasdet.detectors.post_processing import PostProcessing

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


def test_limits_and_score_threshold():
    boxes, scores = random_boxes()
    nms = PostProcessing(score_threshold=0.5, max_detections=5, max_detections_per_class=3)
    found = nms(*predictions(boxes, scores))
    assert found["detection_boxes"].shape == (1, 5, 4)
    count = int(found["num_detections"][0])
    classes = found["detection_classes"].numpy()[0, :count]
    assert max(np.bincount(classes.astype(int))) <= 3
    assert found["detection_scores"].numpy()[0, :count].min() >= 0.5

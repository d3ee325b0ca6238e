"""Targets of regions by hand and against a plain numpy assignment."""

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.detectors.region_targets import region_targets
from mnasdet.detectors.targets import BACKGROUND, IGNORED

SCALES = (20.0, 10.0, 5.0, 2.0)
OBJECTS = np.array([[[0.0, 0.0, 0.5, 0.5], [0.4, 0.4, 1.0, 0.8], [0, 0, 0, 0]]] * 2, np.float32)
CLASSES = np.array([[2, 5, 0], [1, 3, 0]], np.int32)


def overlap(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = np.prod(np.maximum(sides, 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared
    return shared / union if union else 0.0


def encoded(box, region):
    size, own = region[2:] - region[:2], box[2:] - box[:2]
    offset = (box[2:] + box[:2] - region[2:] - region[:2]) / 2 / size
    return np.concatenate([offset, np.log(own / size)]) * SCALES


def regions():
    rng = np.random.default_rng(0)
    near = OBJECTS[:, rng.integers(0, 2, 30)] + rng.normal(scale=0.07, size=(2, 30, 4))
    near[:, 0] = [0.7, 0, 1, 0.3]
    return np.concatenate([np.clip(near, 0, 1), np.zeros((2, 1, 4))], axis=1).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.5, 0.75])
def test_targets(threshold):
    boxes = regions()
    classes, codes = region_targets(
        boxes, OBJECTS, CLASSES, iou_threshold=threshold, box_scales=SCALES
    )
    found = set()
    for image in range(2):
        for place, region in enumerate(boxes[image]):
            overlaps = [overlap(box, region) for box in OBJECTS[image]]
            best = int(np.argmax(overlaps))
            target = CLASSES[image][best] if overlaps[best] >= threshold else BACKGROUND
            if place == 30:
                target = IGNORED
            assert classes[image, place] == target
            found.add(int(target))
            if target > BACKGROUND:
                code = encoded(OBJECTS[image][best].astype(float), region.astype(float))
                np.testing.assert_allclose(codes[image, place], code, atol=1e-5)
    assert found == {1, 2, 3, 5, BACKGROUND, IGNORED}


def test_without_objects_all_is_background():
    classes, codes = region_targets(
        regions(),
        np.zeros((2, 4, 4), np.float32),
        np.zeros((2, 4), np.int32),
        iou_threshold=0.5,
        box_scales=SCALES,
    )
    assert set(classes.numpy()[:, :30].ravel()) == {BACKGROUND}
    assert np.isfinite(codes).all()
    assert tf.reduce_all(classes[:, 30] == IGNORED)

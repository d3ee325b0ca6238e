"""Selection of regions against a plain numpy one."""

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.detectors.proposals import ProposalSelection

SCALES = (10.0, 10.0, 5.0, 5.0)
ANCHORS_OF_LEVELS = (60, 20, 7)


def predictions(seed=0):
    rng = np.random.default_rng(seed)
    count = sum(ANCHORS_OF_LEVELS)
    centre, size = rng.uniform(0, 1, (count, 2)), rng.uniform(0.1, 0.5, (count, 2))
    anchors = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
    codes = rng.normal(size=(2, count, 4)) * 2
    # The boxes of some lie outside the image.
    codes[:, ::9, 0] = -200
    return (x.astype(np.float32) for x in (codes, rng.random((2, count)), anchors))


def decoded(codes, anchors):
    size = anchors[:, 2:] - anchors[:, :2]
    centre = (anchors[:, 2:] + anchors[:, :2]) / 2 + codes[:, :2] / 10 * size
    half = np.exp(codes[:, 2:] / 5) * size / 2
    return np.clip(np.concatenate([centre - half, centre + half], axis=1), 0, 1)


def overlap(a, b):
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = np.prod(np.maximum(sides, 0))
    return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)


def selected(codes, scores, anchors, limit, per_level, threshold, iou):
    boxes = decoded(codes.astype(float), anchors.astype(float))
    candidates, start = [], 0
    for count in ANCHORS_OF_LEVELS:
        best = np.argsort(-scores[start : start + count])[:per_level]
        candidates += list(start + best)
        start += count
    kept = []
    for i in sorted(candidates, key=lambda i: -scores[i]):
        has_area = np.all(boxes[i, :2] < boxes[i, 2:])
        if not has_area or scores[i] <= threshold or len(kept) == limit:
            continue
        if all(overlap(boxes[i], boxes[j]) <= iou for j in kept):
            kept.append(i)
    padding = limit - len(kept)
    return (
        np.concatenate([boxes[kept], np.zeros((padding, 4))]),
        np.concatenate([scores[kept], np.zeros(padding)]),
    )


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    ("limit", "per_level", "threshold", "iou"),
    [(10, 15, 0.0, 0.4), (40, 15, 0.5, 0.6), (87, 0, 0.0, 0.5)],
)
def test_selection(limit, per_level, threshold, iou, jit_compile):
    codes, scores, anchors = predictions()
    select = ProposalSelection(limit, per_level, threshold, iou, SCALES)

    @tf.function(jit_compile=jit_compile)
    def call(codes, scores):
        return select(codes, scores, anchors, ANCHORS_OF_LEVELS)

    found = call(codes, scores)
    assert found.boxes.shape == (2, limit, 4)
    for image in range(2):
        boxes, kept = selected(
            codes[image], scores[image], anchors, limit, per_level or 1000, threshold, iou
        )
        np.testing.assert_allclose(found.scores[image], kept, atol=1e-6)
        np.testing.assert_allclose(found.boxes[image], boxes, atol=1e-5)


def test_each_image_may_have_anchors_of_its_own():
    codes, scores, anchors = predictions()
    select = ProposalSelection(10, 15, 0.0, 0.4)
    own = np.stack([anchors, anchors[:, [1, 0, 3, 2]]])
    found = select(codes, scores, own, ANCHORS_OF_LEVELS)
    for image in range(2):
        boxes, _ = selected(codes[image], scores[image], own[image], 10, 15, 0.0, 0.4)
        np.testing.assert_allclose(found.boxes[image], boxes, atol=1e-5)


def test_no_gradient_flows_through_regions():
    codes, scores, anchors = predictions()
    codes, scores = tf.Variable(codes), tf.Variable(scores)
    with tf.GradientTape() as tape:
        found = ProposalSelection(10)(codes, scores, anchors, ANCHORS_OF_LEVELS)
        total = tf.reduce_sum(found.boxes) + tf.reduce_sum(found.scores)
    assert tape.gradient(total, [codes, scores]) == [None, None]

"""RoIAlign against a plain numpy one, sample by sample."""

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.detectors.region_features import RegionFeatures, from_proto
from mnasdet.protos import architecture_pb2

IMAGE = (64, 96)
LEVELS = (2, 3, 4)
FINEST_SCALE = 16


def features(channels=3, levels=LEVELS):
    rng = np.random.default_rng(0)
    return {
        level: rng.random((2, IMAGE[0] >> level, IMAGE[1] >> level, channels)).astype(np.float32)
        for level in levels
    }


def regions(count=20):
    """Regions of all scales; among them none, all of the image, and one at its very edge."""
    rng = np.random.default_rng(1)
    centre, size = rng.random((2, count, 2)), np.exp(rng.uniform(-3, 0, (2, count, 2)))
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=2)
    boxes[0, :3] = [[0, 0, 0, 0], [0, 0, 1, 1], [0.99, 0.99, 1, 1]]
    return np.clip(boxes, 0, 1).astype(np.float32)


def level_of(box, levels):
    height, width = (box[2] - box[0]) * IMAGE[0], (box[3] - box[1]) * IMAGE[1]
    for level in levels:
        if np.sqrt(height * width) < FINEST_SCALE * 2.0 ** (level - 1):
            return level
    return levels[-1]


def weights(places, count):
    """How much each of `count` pixels is in samples at places: their values stand at centres."""
    places = np.clip(places - 0.5, 0, count - 1)
    return np.maximum(1 - np.abs(places[:, None] - np.arange(count)), 0)


def aligned(by_level, box, size, ratio):
    level = level_of(box, sorted(by_level))
    box = box.astype(float) * [*IMAGE, *IMAGE] / 2.0**level
    steps = (np.arange(size * ratio) + 0.5) / (size * ratio)
    ys, xs = box[0] + steps * (box[2] - box[0]), box[1] + steps * (box[3] - box[1])
    height, width, _ = by_level[level].shape
    samples = np.einsum("ph,qw,hwc->pqc", weights(ys, height), weights(xs, width), by_level[level])
    return samples.reshape(size, ratio, size, ratio, -1).mean((1, 3))


def expected(by_level, boxes, size, ratio):
    by_level = {level: value.astype(float) for level, value in by_level.items()}
    return np.array(
        [
            [aligned({k: v[i] for k, v in by_level.items()}, box, size, ratio) for box in of_image]
            for i, of_image in enumerate(boxes)
        ]
    )


def align(levels=LEVELS, **arguments):
    sizes = {level: (IMAGE[0] >> level, IMAGE[1] >> level) for level in levels}
    arguments = {"size": 4, **arguments}
    return RegionFeatures(IMAGE, sizes, finest_scale=FINEST_SCALE, **arguments)


def called(of_regions, by_level, boxes, jit_compile=False):
    @tf.function(jit_compile=jit_compile)
    def call(by_level, boxes):
        return of_regions(of_regions.sheet(by_level), boxes)

    return call({level: tf.constant(x) for level, x in by_level.items()}, tf.constant(boxes))


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("ratio", [1, 2])
def test_values(ratio, jit_compile):
    by_level, boxes = features(), regions()
    found = called(align(sampling_ratio=ratio), by_level, boxes, jit_compile)
    assert {level_of(box, LEVELS) for box in boxes.reshape(-1, 4)} == set(LEVELS)
    np.testing.assert_allclose(found, expected(by_level, boxes, 4, ratio), atol=1e-5)


def test_one_level():
    by_level, boxes = features(levels=(4,)), regions()
    found = called(align(levels=(4,)), by_level, boxes)
    np.testing.assert_allclose(found, expected(by_level, boxes, 4, 2), atol=1e-5)


def test_a_level_that_is_left_out_has_its_regions_on_the_next_coarser_one():
    by_level, boxes = features(levels=(2, 4)), regions()
    found = called(align(levels=(2, 4)), by_level, boxes)
    np.testing.assert_allclose(found, expected(by_level, boxes, 4, 2), atol=1e-5)


def cropped(by_level, box, size):
    """TensorFlow's crop_and_resize: corners are samples, and the last pixels the image's edges."""
    feature = by_level[level_of(box, sorted(by_level))].astype(float)
    box, steps = box.astype(float), np.linspace(0, 1, size)
    samples = feature
    for axis, count in enumerate(feature.shape[:2]):
        places = (box[axis] + steps * (box[axis + 2] - box[axis])) * (count - 1)
        hats = np.maximum(1 - np.abs(places[:, None] - np.arange(count)), 0)
        samples = np.moveaxis(np.tensordot(hats, samples, (1, axis)), 0, axis)
    return samples


@pytest.mark.parametrize("jit_compile", [False, True])
def test_crops_from_corner_to_corner(jit_compile):
    by_level, boxes = features(), regions()
    of_regions = align(sampling_ratio=1, from_corner_to_corner=True)
    found = called(of_regions, by_level, boxes, jit_compile).numpy()
    for image in range(2):
        of_image = {level: value[image] for level, value in by_level.items()}
        for box, crop in zip(boxes[image], found[image], strict=True):
            np.testing.assert_allclose(crop, cropped(of_image, box, 4), atol=1e-5)
    # The same from TensorFlow's own operation, of a single feature.
    one = align(levels=(4,), sampling_ratio=1, from_corner_to_corner=True)
    own = tf.image.crop_and_resize(by_level[4][:1], boxes[0], [0] * len(boxes[0]), (4, 4))
    np.testing.assert_allclose(
        called(one, {4: by_level[4][:1]}, boxes[:1], jit_compile)[0], own, atol=1e-5
    )


def test_a_max_pool_over_the_bins():
    by_level, boxes = features(), regions()
    bins = expected(by_level, boxes, 4, 1)
    found = called(
        align(sampling_ratio=1, max_pool_size=2, max_pool_stride=2), by_level, boxes
    ).numpy()
    pooled = bins.reshape(2, -1, 2, 2, 2, 2, 3).max((3, 5))
    np.testing.assert_allclose(found, pooled, atol=1e-5)
    # Nothing is padded.
    assert called(align(max_pool_size=3, max_pool_stride=2), by_level, boxes).shape[2:4] == (1, 1)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_gradients_against_finite_differences(jit_compile):
    by_level, boxes = features(1), regions(6)
    factors = np.random.default_rng(2).normal(size=(2, 6, 4, 4, 1))
    of_regions = align()

    @tf.function(jit_compile=jit_compile)
    def gradients(by_level, boxes):
        with tf.GradientTape() as tape:
            tape.watch([by_level, boxes])
            found = of_regions(of_regions.sheet(by_level), boxes)
            total = tf.reduce_sum(found * tf.constant(factors, tf.float32))
        return tape.gradient(total, [by_level, boxes])

    found, of_boxes = gradients(
        {level: tf.constant(x) for level, x in by_level.items()}, tf.constant(boxes)
    )
    assert of_boxes is None
    rng = np.random.default_rng(3)
    for level, value in by_level.items():
        for _ in range(4):
            place = tuple(rng.integers(value.shape))
            moved = {name: x.astype(float) for name, x in by_level.items()}
            total = {}
            for step in (0.5, -0.5):
                moved[level][place] = value[place] + step
                total[step] = (expected(moved, boxes, 4, 2) * factors).sum()
            # Samples are linear in the features, so a large step has no error.
            np.testing.assert_allclose(found[level][place], total[0.5] - total[-0.5], atol=1e-5)


def test_what_an_architecture_says():
    proto = architecture_pb2.RegionAlign(size=14, max_pool_size=2, max_pool_stride=2)
    assert from_proto(proto, IMAGE, [4], [(4, 6)]) == RegionFeatures(
        IMAGE, {4: (4, 6)}, size=14, max_pool_size=2, max_pool_stride=2
    )

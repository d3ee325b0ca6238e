"""Balanced samples: how many of which kind, and that the lots decide."""

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.detectors import sampling
from mnasdet.detectors.targets import BACKGROUND, IGNORED


def drawn(class_targets, lots, size, fraction):
    """The same in numpy: the places that are drawn, positive ones first."""
    class_targets, lots = np.asarray(class_targets), np.asarray(lots)
    order = np.argsort(-lots, kind="stable")
    positive = [i for i in order if class_targets[i] > BACKGROUND][: int(size * fraction)]
    negative = [i for i in order if class_targets[i] == BACKGROUND]
    return positive + negative[: size - len(positive)]


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    ("weights", "size", "fraction"),
    [
        ((0.4, 0.4, 0.2), 20, 0.25),  # more than enough of both
        ((0.02, 0.78, 0.2), 20, 0.5),  # too few positive ones: negative ones fill up
        ((0.9, 0.05, 0.05), 20, 0.25),  # too few negative ones: nothing fills up
        ((0.0, 0.0, 1.0), 20, 0.5),  # none at all
        ((0.4, 0.4, 0.2), 200, 0.5),  # a sample larger than all there is
        ((0.5, 0.5, 0.0), 20, 0.0),
    ],
)
def test_counts_and_lots(weights, size, fraction, jit_compile):
    rng = np.random.default_rng(0)
    class_targets = rng.choice([3, BACKGROUND, IGNORED], (2, 100), p=weights).astype(np.int32)
    lots = rng.random((2, 100)).astype(np.float32)

    @tf.function(jit_compile=jit_compile)
    def call(class_targets, lots):
        return sampling.balanced(class_targets, lots, size=size, positive_fraction=fraction)

    sample = call(class_targets, lots)
    assert sample.indices.shape == sample.is_drawn.shape == (2, size)
    for image in range(2):
        expected = drawn(class_targets[image], lots[image], size, fraction)
        is_drawn = sample.is_drawn[image].numpy()
        assert is_drawn.tolist() == [True] * len(expected) + [False] * (size - len(expected))
        assert sample.indices[image].numpy()[is_drawn].tolist() == expected


def test_one_image_alone():
    sample = sampling.balanced(
        tf.constant([0, 1, -1, 0]), tf.constant([0.1, 0.2, 0.9, 0.3]), size=2, positive_fraction=0.5
    )
    assert sample.indices.numpy().tolist() == [1, 3]

"""Balanced samples of positive and negative examples, of one size whatever there is."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from mnasdet.detectors.targets import BACKGROUND


class Sample(NamedTuple):
    """Examples that were drawn.

    Attributes:
      indices: [..., size] int32, positive ones first.
      is_drawn: [..., size] bool; the others fill up, where there are fewer examples than asked for.
    """

    indices: tf.Tensor
    is_drawn: tf.Tensor


def balanced(
    class_targets: tf.Tensor, lots: tf.Tensor, *, size: int, positive_fraction: float
) -> Sample:
    """Draws positive examples, and negative ones for the rest of a sample.

    As the OD API's BalancedPositiveNegativeSampler: negative examples fill the places that too few
    positive ones leave, but not the reverse.

    Args:
      class_targets: [..., examples] int32: a class from 1, BACKGROUND or IGNORED.
      lots: [..., examples], random numbers in [0, 1): the largest are drawn.
      size: of the sample.
      positive_fraction: the largest share of positive examples.
    """
    num_examples = class_targets.shape[-1]
    max_positives = min(int(size * positive_fraction), num_examples)
    positives = _largest(lots, class_targets > BACKGROUND, max_positives)
    # As many as the whole sample: there may be no positive example.
    negatives = _largest(lots, class_targets == BACKGROUND, min(size, num_examples))
    indices = tf.concat([positives.indices, negatives.indices], axis=-1)
    is_drawn = tf.concat([positives.is_drawn, negatives.is_drawn], axis=-1)
    # Places that are free go to what comes after them; at the end, all that is left over is none.
    order = tf.argsort(tf.cast(~is_drawn, tf.int32), axis=-1, stable=True)[..., :size]
    sample = Sample(*(tf.gather(x, order, axis=-1, batch_dims=-1) for x in (indices, is_drawn)))
    missing = size - sample.indices.shape[-1]
    if missing <= 0:
        return sample
    padding = [[0, 0]] * (len(sample.indices.shape) - 1) + [[0, missing]]
    return Sample(*(tf.pad(x, padding) for x in sample))


def _largest(lots: tf.Tensor, eligible: tf.Tensor, count: int) -> Sample:
    lots, indices = tf.math.top_k(tf.where(eligible, lots, -1.0), count)
    # Lots are at least 0, so that -1 marks an example that only fills up.
    return Sample(indices, lots >= 0)

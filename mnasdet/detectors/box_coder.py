"""Boxes relative to anchors (Ren et al., "Faster R-CNN", 2015, section 3.1.2)."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

# y, x, height, width: the factors of the OD API's SSD configs. Faster R-CNN's code divides by the
# deviations 0.1 and 0.2 of the codes, which is the same.
DEFAULT_SCALES = (10.0, 10.0, 5.0, 5.0)

# Keeps the logarithm of an empty side finite.
_EPSILON = 1e-8


def _centre_and_size(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, high - low


def encode(boxes: tf.Tensor, anchors: tf.Tensor, scales: Sequence[float]) -> tf.Tensor:
    """Offsets of the centres in anchor sizes and logarithms of the size ratios, times `scales`.

    Args:
      boxes: [..., 4] (ymin, xmin, ymax, xmax); `anchors` likewise.

    Returns:
      [..., 4] (y, x, height, width).
    """
    centre, size = _centre_and_size(boxes)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    offset = (centre - anchor_centre) / (anchor_size + _EPSILON)
    ratio = tf.math.log((size + _EPSILON) / (anchor_size + _EPSILON))
    return tf.concat([offset, ratio], axis=-1) * tf.constant(scales, tf.float32)


def decode(codes: tf.Tensor, anchors: tf.Tensor, scales: Sequence[float]) -> tf.Tensor:
    """Decodes `codes`, [..., 4], into the boxes that they stand for: the inverse of `encode`."""
    codes /= tf.constant(scales, tf.float32)
    anchor_centre, anchor_size = _centre_and_size(anchors)
    centre = codes[..., :2] * anchor_size + anchor_centre
    half = tf.exp(codes[..., 2:]) * anchor_size / 2
    return tf.concat([centre - half, centre + half], axis=-1)

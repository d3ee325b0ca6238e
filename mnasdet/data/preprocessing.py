"""Makes the input of a network from an image, as an ImageResizer says."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from mnasdet.data.image_resizer import ImageResizer
from mnasdet.protos import image_resizer_pb2

_METHODS = {
    image_resizer_pb2.BILINEAR: tf.image.ResizeMethod.BILINEAR,
    image_resizer_pb2.NEAREST_NEIGHBOR: tf.image.ResizeMethod.NEAREST_NEIGHBOR,
    image_resizer_pb2.BICUBIC: tf.image.ResizeMethod.BICUBIC,
    image_resizer_pb2.AREA: tf.image.ResizeMethod.AREA,
}


def preprocess(image: tf.Tensor, resizer: ImageResizer) -> tuple[tf.Tensor, tf.Tensor]:
    """Makes the network's input of an image.

    Args:
      image: [..., height, width, 3] uint8.

    Returns:
      [..., *resizer.image_size, 3] float32 within [-1, 1];
      its extent [2] float32: the shares of height and width that the image has, the rest is padding
      on the right and below.
    """
    image = _center(image, resizer)
    size = _size_without_padding(image, resizer)
    resized = tf.image.resize(image, size, _METHODS[resizer.resize_method])
    resized = tf.cast(resized, tf.float32)
    if resizer.resize_method == image_resizer_pb2.BICUBIC:
        resized = tf.clip_by_value(resized, 0.0, 255.0)  # It overshoots at edges.
    if resizer.grayscale:
        resized = tf.repeat(tf.image.rgb_to_grayscale(resized), 3, axis=-1)
    extent = tf.ones([2])
    if resizer.min_dimension:
        resized = _padded_image(resized, size, resizer)
        extent = tf.cast(size, tf.float32) / tf.constant(resizer.image_size, tf.float32)
    return resized * (2.0 / 255.0) - 1.0, extent


def _center(image: tf.Tensor, resizer: ImageResizer) -> tf.Tensor:
    """Returns the part of images [..., height, width, 3] that the resizer looks at."""
    if not resizer.crop_fraction:
        return image
    size = tf.cast(tf.shape(image)[-3:-1], tf.float32)
    shape = tf.constant(resizer.image_size, tf.float32)
    window = resizer.crop_fraction * shape * tf.reduce_min(size / shape)
    window = tf.clip_by_value(tf.round(window), 1.0, size)
    begin, window = (tf.cast(value, tf.int32) for value in ((size - window) // 2, window))
    top, left = tf.unstack(begin)
    bottom, right = tf.unstack(begin + window)
    return image[..., top:bottom, left:right, :]


def _size_without_padding(image: tf.Tensor, resizer: ImageResizer) -> Any:
    """Returns the (height, width) that an image is resized to."""
    if not resizer.min_dimension:
        return resizer.image_size
    size = tf.cast(tf.shape(image)[-3:-1], tf.float32)
    largest = tf.constant(resizer.image_size, tf.float32)
    scale = resizer.min_dimension / tf.reduce_min(size)
    # The longer side decides where the shorter one at its length would not let it fit.
    scale = tf.minimum(scale, tf.reduce_min(largest / size))
    return tf.cast(tf.clip_by_value(tf.round(size * scale), 1.0, largest), tf.int32)


def _padded_image(image: tf.Tensor, size: tf.Tensor, resizer: ImageResizer) -> tf.Tensor:
    """Pads images [..., *size, 3] on the right and below to the network's size."""
    height, width = resizer.image_size
    leading = tf.unstack(tf.shape(image))[:-3]
    # Rows of numbers: to pad pixels of three channels takes TensorFlow several times as long.
    rows = tf.reshape(image, [*leading, size[0], 3 * size[1]])
    margins = [[0, 0]] * len(leading) + [[0, height - size[0]], [0, 3 * (width - size[1])]]
    padded = tf.reshape(tf.pad(rows, margins), [*leading, height, width, 3])
    if not any(resizer.pad_color):
        return padded
    inside = (tf.range(height)[:, None] < size[0]) & (tf.range(width) < size[1])
    return tf.where(inside[..., None], padded, tf.constant(resizer.pad_color, tf.float32))

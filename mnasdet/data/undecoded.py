"""Pictures of which the wanted part is decided before any of it is decoded.

A crop or a flip is drawn from boxes and sizes and looks at no pixel. Where an augmentation begins
with such steps they are noted, and the decoder is then asked for one window: the same pixels as of
the whole picture, in less time.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import tensorflow as tf

# Pixels around a window that are decoded with it. Colours of a JPEG are stored at half the size
# and smoothed from their neighbours, so those at the edge of what is decoded would differ.
_MARGIN = 8


class Undecoded(NamedTuple):
    """A picture of which only a part is to be seen.

    It is a tuple of tensors, so that tf.cond and tf.data take it.

    Attributes:
      encoded: the bytes of a JPEG or PNG, string.
      size: (height, width) of the whole picture, int32 [2].
      begin: (y, x) of the part in the stored picture, int32 [2].
      window: (height, width) of the part, int32 [2].
      mirrored: whether the part is turned upside down, and whether left and right are exchanged,
        bool [2].
    """

    encoded: tf.Tensor
    size: tf.Tensor
    begin: tf.Tensor
    window: tf.Tensor
    mirrored: tf.Tensor


# uint8 [height, width, 3], or what becomes that.
Image: TypeAlias = "tf.Tensor | Undecoded"


def whole(encoded: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> Undecoded:
    """Returns a picture of which nothing is cut off yet."""
    size = tf.stack([height, width])
    return Undecoded(encoded, size, tf.zeros([2], tf.int32), size, tf.zeros([2], tf.bool))


def size_of(image: Image) -> tf.Tensor:
    """Returns (height, width), int32 [2]."""
    return image.window if isinstance(image, Undecoded) else tf.shape(image)[:2]


def cut(image: Image, begin: tf.Tensor, size: tf.Tensor) -> Image:
    """Returns the window of `size` at `begin`."""
    if not isinstance(image, Undecoded):
        return tf.slice(image, tf.concat([begin, [0]], 0), tf.concat([size, [3]], 0))
    # The first column of a mirrored picture is the last of the stored one.
    stored = tf.where(image.mirrored, image.window - begin - size, begin)
    return image._replace(begin=image.begin + stored, window=size)


def mirror(image: Image, axis: int) -> Image:
    """Turns the image upside down (0), or exchanges left and right (1)."""
    if not isinstance(image, Undecoded):
        return tf.reverse(image, [axis])
    turned = tf.constant([axis == 0, axis == 1])
    return image._replace(mirrored=image.mirrored ^ turned)


def pixels(image: Image) -> tf.Tensor:
    """Returns the pixels, uint8 [height, width, 3]."""
    if not isinstance(image, Undecoded):
        return image
    part = tf.cond(
        tf.io.is_jpeg(image.encoded), lambda: _part_of_jpeg(image), lambda: _part_of_png(image)
    )
    return tf.cond(
        tf.reduce_any(image.mirrored),
        lambda: tf.reverse(part, tf.reshape(tf.where(image.mirrored), [-1])),
        lambda: part,
    )


def _part_of_jpeg(image: Undecoded) -> tf.Tensor:
    top_left = tf.maximum(image.begin - _MARGIN, 0)
    bottom_right = tf.minimum(image.begin + image.window + _MARGIN, image.size)
    around = tf.concat([top_left, bottom_right - top_left], 0)
    decoded = tf.io.decode_and_crop_jpeg(image.encoded, around, channels=3)
    return cut(decoded, image.begin - top_left, image.window)


def _part_of_png(image: Undecoded) -> tf.Tensor:
    decoded = tf.io.decode_image(image.encoded, channels=3, expand_animations=False)
    return cut(decoded, image.begin, image.window)

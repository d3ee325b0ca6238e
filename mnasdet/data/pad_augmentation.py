"""Augmentations that show the image on a canvas of another size.

Examples, seeds and types are those of `augmentation.py`. Sizes and places are (y, x) in pixels,
int32 [2].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from mnasdet.data import undecoded
from mnasdet.data.crop_augmentation import (
    SSD_CROP_OPERATIONS,
    CropOperation,
    at_least_a_pixel,
    choice,
    crop,
    crop_by,
    uniform_ints,
)
from mnasdet.data.geometric_augmentation import Example, keep_boxes, resize_uint8
from mnasdet.errors import ConfigError


@dataclass(frozen=True)
class PadOperation:
    """How large a canvas the image is put on.

    Attributes:
      min_size_ratio, max_size_ratio: height and width over those of the image before any crop.
      color: (red, green, blue), 0 to 255; empty: the mean of what is put on it.
    """

    min_size_ratio: tuple[float, ...] = (1.0, 1.0)
    max_size_ratio: tuple[float, ...] = (2.0, 2.0)
    color: tuple[float, ...] = ()

    @classmethod
    def from_proto(cls, proto: Any, name: str) -> PadOperation:
        """Reads an operation. Raises ConfigError, with the proto's field, for a wrong number of
        values.

        Args:
          proto: RandomCropPadImage or an operation of SSDRandomCropPad.
        """
        for field in ("min_padded_size_ratio", "max_padded_size_ratio"):
            _check_length(getattr(proto, field), 2, f"{name}: {field}")
        if "pad_color" in proto.DESCRIPTOR.fields_by_name:
            color = tuple(proto.pad_color)
            _check_length(color, 3, f"{name}: pad_color")
        else:
            color = (proto.pad_color_r, proto.pad_color_g, proto.pad_color_b)
        return cls(
            tuple(proto.min_padded_size_ratio) or cls.min_size_ratio,
            tuple(proto.max_padded_size_ratio) or cls.max_size_ratio,
            color,
        )


# The OD API's: those of ssd_random_crop that ask for an object.
SSD_CROP_PAD_OPERATIONS = tuple(
    (operation, PadOperation()) for operation in SSD_CROP_OPERATIONS if operation.min_object_covered
)


def random_crop_pad_image(
    example: Example, seed: tf.Tensor, operation: CropOperation, padding: PadOperation
) -> Example:
    """Crops, then puts the crop at a random place of a canvas."""
    return ssd_random_crop_pad(example, seed, [(operation, padding)])


def ssd_random_crop_pad(
    example: Example,
    seed: tf.Tensor,
    operations: Sequence[tuple[CropOperation, PadOperation]] = SSD_CROP_PAD_OPERATIONS,
) -> Example:
    """Crops by one of the operations, drawn uniformly, and puts the crop on a canvas.

    Its place on the canvas is random. The operations have either all a colour or none.
    """
    seeds = tf.random.experimental.stateless_split(seed, 4)
    index = choice(seeds[0], len(operations))
    crops, pads = zip(*operations, strict=True)
    # The size before the crop: the ratios are relative to that, as in the OD API.
    size = tf.cast(undecoded.size_of(example["image"]), tf.float32)
    smallest = size * tf.constant([pad.min_size_ratio for pad in pads])[index]
    largest = size * tf.constant([pad.max_size_ratio for pad in pads])[index]
    color = tf.constant([pad.color for pad in pads])[index] if pads[0].color else None
    example = crop_by(example, seeds[1:3], crops, index)
    return _pad_between(
        example, seeds[3], tf.cast(smallest, tf.int32), tf.cast(largest, tf.int32), color
    )


def random_pad_image(
    example: Example,
    seed: tf.Tensor,
    *,
    min_image_height: int = 0,
    min_image_width: int = 0,
    max_image_height: int = 0,
    max_image_width: int = 0,
    pad_color: Sequence[float] = (),
) -> Example:
    """Puts the image at a random place of a canvas of a random size.

    Args:
      min_image_height, min_image_width: of the canvas; 0, or less than the image's: the image's.
      max_image_height, max_image_width: likewise; 0: twice the image's.
      pad_color: (red, green, blue), 0 to 255; empty: the image's mean.
    """
    size = tf.shape(example["image"])[:2]
    largest = tf.constant([max_image_height, max_image_width])
    return _pad_between(
        example,
        seed,
        tf.constant([min_image_height, min_image_width]),
        tf.where(largest > 0, largest, 2 * size),
        _color(pad_color, "random_pad_image"),
    )


def random_absolute_pad_image(
    example: Example,
    seed: tf.Tensor,
    *,
    max_height_padding: int = 0,
    max_width_padding: int = 0,
    pad_color: Sequence[float] = (),
) -> Example:
    """Puts the image at a random place of a canvas that is larger by some pixels.

    Args:
      pad_color: (red, green, blue), 0 to 255; empty: the image's mean.
    """
    size = tf.shape(example["image"])[:2]
    largest = size + tf.constant([max_height_padding, max_width_padding])
    return _pad_between(
        example, seed, size, largest, _color(pad_color, "random_absolute_pad_image")
    )


def random_square_crop_by_scale(
    example: Example,
    seed: tf.Tensor,
    *,
    max_border: int,
    scale_min: float,
    scale_max: float,
    num_scales: int,
) -> Example:
    """Crops to a square window around a random pixel (Zhou et al., "Objects as Points", 2019).

    Its side is the image's longer one times one of `num_scales` scales; what of it is outside the
    image is black. Its centre is at least `max_border` pixels inside the image, halved until there
    is room for that.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    size = undecoded.size_of(example["image"])
    scales = tf.linspace(scale_min, scale_max, num_scales)
    scale = scales[choice(seeds[0], num_scales)]
    longer = tf.cast(tf.reduce_max(size), tf.float32)
    side = tf.maximum(tf.cast(scale * longer, tf.int32), 2)
    border = _halved_to_fit(max_border, size)
    begin = uniform_ints(seeds[1], border, size - border) - side // 2
    visible = tf.maximum(begin, 0)
    end = tf.minimum(begin + side, size)
    example = crop(example, visible, end - visible, overlap_thresh=0.0)
    return _put(example, visible - begin, tf.stack([side, side]))


def random_scale_crop_and_pad_to_square(
    example: Example, seed: tf.Tensor, *, output_size: int, scale_min: float, scale_max: float
) -> Example:
    """Jitters the scale (Tan et al., "EfficientDet", 2020, section 5.1).

    The longer side becomes `output_size` times a random scale; what is too large is cropped at a
    random place, what is too small is padded with black to the right and below.
    """
    draws = tf.random.stateless_uniform([3], seed)
    size = tf.cast(undecoded.size_of(example["image"]), tf.float32)
    scale = scale_min + draws[0] * (scale_max - scale_min)
    ratio = output_size * scale / tf.reduce_max(size)
    # The window is cut out of the original image, so that no more is scaled than is kept.
    window = tf.minimum(tf.maximum(tf.round(output_size / ratio), 1.0), size)
    begin = tf.floor(draws[1:] * (size - window + 1.0))
    example = crop(example, tf.cast(begin, tf.int32), tf.cast(window, tf.int32), overlap_thresh=0.0)
    scaled = tf.clip_by_value(tf.round(window * ratio), 1.0, float(output_size))
    image = resize_uint8(undecoded.pixels(example["image"]), tf.cast(scaled, tf.int32))
    square = tf.constant([output_size, output_size])
    example = _put({**example, "image": image}, tf.zeros_like(square), square)
    return keep_boxes(example, at_least_a_pixel(example["boxes"], square))


def _pad_between(
    example: Example,
    seed: tf.Tensor,
    smallest: tf.Tensor,
    largest: tf.Tensor,
    color: tf.Tensor | None,
) -> Example:
    """Puts the image at a random place of a canvas between the two sizes.

    The canvas is never smaller than the image; without a colour it has the image's mean.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    image = undecoded.pixels(example["image"])
    example = {**example, "image": image}
    if color is None:
        color = tf.reduce_mean(tf.reduce_mean(tf.cast(image, tf.float32), 0), 0)
    size = tf.shape(image)[:2]
    smallest = tf.maximum(smallest, size)
    canvas = uniform_ints(seeds[0], smallest, tf.maximum(largest, smallest))
    begin = uniform_ints(seeds[1], tf.zeros_like(size), canvas - size)
    return _put(example, begin, canvas, color)


def _put(
    example: Example, begin: tf.Tensor, canvas: tf.Tensor, color: tf.Tensor | None = None
) -> Example:
    """Puts the image at `begin` of a canvas of a colour, 0 to 255; without one black."""
    image = undecoded.pixels(example["image"])
    size = tf.shape(image)[:2]
    # Rows of bytes: to pad pixels of three channels takes TensorFlow eight times as long.
    rows = tf.reshape(image, [size[0], 3 * size[1]])
    margins = tf.stack([begin, canvas - size - begin], axis=1) * [[1], [3]]
    if color is None:
        padded = tf.pad(rows, margins)
    else:
        # Bytes wrap around: the image comes out as it went in, the zeros around it as the colour.
        row = tf.tile(tf.cast(tf.round(color), tf.uint8), [canvas[1]])
        padded = tf.pad(rows - row[: 3 * size[1]], margins) + row
    pixels = example["boxes"] * tf.cast(tf.tile(size, [2]), tf.float32)
    moved = pixels + tf.cast(tf.tile(begin, [2]), tf.float32)
    boxes = moved / tf.cast(tf.tile(canvas, [2]), tf.float32)
    return {**example, "image": tf.reshape(padded, [canvas[0], canvas[1], 3]), "boxes": boxes}


def _halved_to_fit(border: int, size: tf.Tensor) -> tf.Tensor:
    """Halves `border`, for each size, until it is at most half of it."""
    halved = tf.constant([border / 2**times for times in range(border.bit_length() + 1)])
    too_large = 2.0 * halved[:, None] > tf.cast(size, tf.float32)
    return border // 2 ** tf.reduce_sum(tf.cast(too_large, tf.int32), axis=0)


def _color(values: Sequence[float], name: str) -> tf.Tensor | None:
    _check_length(values, 3, f"{name}: pad_color")
    return tf.constant(list(values)) if values else None


def _check_length(values: Sequence[float], length: int, name: str) -> None:
    if len(values) not in (0, length):
        raise ConfigError(f"{name} has {len(values)} values; {length} are needed, or none")

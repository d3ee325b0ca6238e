"""RandAugment (Cubuk et al., 2020): some of 14 operations, one after another.

Examples, seeds and types are those of `augmentation.py`. Boxes move with the pixels: a box becomes
the upright one around its four moved corners, as in tf-models-official's `distort_with_boxes`. That
one draws from TensorFlow's global generator, so the same seed would not give the same image in
another process.

How far an operation goes is its level, from -1 to 1, as in torchvision: 0 leaves the image as it is
in all of them. (The paper's own code posterises and solarises the more, the lower the level is.)
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from mnasdet.data.crop_augmentation import keep_visible
from mnasdet.data.geometric_augmentation import Example, has_boxes

# A movement of an image: for (x, y) of the result, about the centre, the place in the image, by the
# rows of a matrix and a shift (y, x) in shares of the image's sides.
_Move = tuple[list[tf.Tensor | float], tuple[tf.Tensor | float, tf.Tensor | float]]

# The level of 1 is this magnitude.
MAX_MAGNITUDE = 10

# At the level of 1: degrees; shift over shift of rows; shares of the side; factors beside 1; bits.
_ROTATION, _SHEAR, _TRANSLATION, _ENHANCEMENT, _BITS = 30.0, 0.3, 0.45, 0.9, 4

# The colour outside of the image.
_GRAY = 128.0

# A box of which an operation leaves less than this share in the image is dropped, as in the OD
# API's crops.
_OVERLAP_THRESH = 0.3

# PIL's ImageFilter.SMOOTH.
_SMOOTH = [[1 / 13, 1 / 13, 1 / 13], [1 / 13, 5 / 13, 1 / 13], [1 / 13, 1 / 13, 1 / 13]]


def rand_augment(
    example: Example, seed: tf.Tensor, *, num_layers: int, magnitude: float
) -> Example:
    """Applies `num_layers` operations, drawn uniformly, each in a random direction."""
    for draws in tf.unstack(tf.random.stateless_uniform([num_layers, 2], seed)):
        index = tf.cast(tf.floor(draws[0] * len(OPERATIONS)), tf.int32)
        level = magnitude / MAX_MAGNITUDE * tf.where(draws[1] < 0.5, -1.0, 1.0)
        moved = ["image", "boxes"] if has_boxes(example) else ["image"]
        branches = [
            functools.partial(_changed, name, [example[key] for key in moved], level)
            for name in OPERATIONS
        ]
        changed = zip(moved, tf.switch_case(index, branches), strict=True)
        example = {**example, **dict(changed)}
        if has_boxes(example):
            example = keep_visible(example, _OVERLAP_THRESH)
    return example


def _changed(name: str, moved: Sequence[tf.Tensor], level: tf.Tensor) -> list[tf.Tensor]:
    """Applies an operation to the image and, where it moves pixels, to the boxes after it."""
    image, *boxes = moved
    changed = OPERATIONS[name](image, level)
    if name in _MOVES:
        boxes = [_moved_boxes(one, image, _MOVES[name](level)) for one in boxes]
    return [changed, *boxes]


def _identity(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    return tf.identity(image)


def _auto_contrast(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Stretches each channel to all values from 0 to 255."""
    pixels = tf.cast(image, tf.float32)
    low, high = tf.reduce_min(pixels, [0, 1]), tf.reduce_max(pixels, [0, 1])
    stretched = tf.math.divide_no_nan(255.0 * (pixels - low), high - low)
    return _uint8(tf.where(high > low, stretched, pixels))


def _equalize(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Makes all values of a channel about equally frequent, by PIL's rule."""
    places = tf.cast(image, tf.int32) + 256 * tf.range(3)
    counts = tf.reshape(tf.math.bincount(tf.reshape(places, [-1]), minlength=768), [3, 256])
    before = tf.cumsum(counts, axis=1, exclusive=True)
    largest = tf.cast(tf.reduce_max(image, [0, 1]), tf.int32)
    # As many pixels for every step of the result; those of the largest value have none after them.
    step = tf.gather(before, largest, batch_dims=1)[:, None] // 255
    values = tf.clip_by_value((before + step // 2) // tf.maximum(step, 1), 0, 255)
    values = tf.where(step > 0, values, tf.range(256))
    return tf.cast(tf.gather(tf.reshape(values, [-1]), places), tf.uint8)


def _posterize(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Drops up to four of the eight bits."""
    bits = tf.cast(tf.round(_BITS * tf.abs(level)), tf.uint8)
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, bits), bits)


def _solarize(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Inverts the values from a threshold on."""
    threshold = 256.0 * (1.0 - tf.abs(level))
    return tf.where(tf.cast(image, tf.float32) < threshold, image, 255 - image)


def _color(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    return _enhanced(image, tf.image.rgb_to_grayscale(tf.cast(image, tf.float32)), level)


def _contrast(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    luminance = tf.image.rgb_to_grayscale(tf.cast(image, tf.float32))
    return _enhanced(image, tf.round(tf.reduce_mean(luminance)), level)


def _brightness(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    return _enhanced(image, tf.constant(0.0), level)


def _sharpness(image: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Goes away from the smoothed image, or towards it; pixels at the edges stay."""
    pixels = tf.cast(image, tf.float32)
    kernel = tf.tile(tf.constant(_SMOOTH)[..., None, None], [1, 1, 3, 1])
    smooth = tf.nn.depthwise_conv2d(pixels[None], kernel, [1, 1, 1, 1], "SAME")[0]
    rows, columns = (
        (tf.range(side) > 0) & (tf.range(side) < side - 1)
        for side in tf.unstack(tf.shape(image)[:2])
    )
    inside = rows[:, None] & columns
    return _enhanced(image, tf.where(inside[..., None], tf.round(smooth), pixels), level)


def _enhanced(image: tf.Tensor, dull: tf.Tensor, level: tf.Tensor) -> tf.Tensor:
    """Blends as PIL's ImageEnhance: from `dull` to the image, and as far again beyond."""
    return _uint8(dull + (1.0 + _ENHANCEMENT * level) * (tf.cast(image, tf.float32) - dull))


def _rotation(level: tf.Tensor) -> _Move:
    angle = level * math.radians(_ROTATION)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return [cosine, -sine, sine, cosine], (0.0, 0.0)


# The operations that move pixels, and what they do at a level.
_MOVES: dict[str, Callable[[tf.Tensor], _Move]] = {
    "rotate": _rotation,
    "shear_x": lambda level: ([1.0, _SHEAR * level, 0.0, 1.0], (0.0, 0.0)),
    "shear_y": lambda level: ([1.0, 0.0, _SHEAR * level, 1.0], (0.0, 0.0)),
    "translate_x": lambda level: ([1.0, 0.0, 0.0, 1.0], (0.0, _TRANSLATION * level)),
    "translate_y": lambda level: ([1.0, 0.0, 0.0, 1.0], (_TRANSLATION * level, 0.0)),
}


def _by(name: str) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns the operation on images of a move."""
    return lambda image, level: _moved(image, *_MOVES[name](level))


def _moved(
    image: tf.Tensor,
    matrix: list[tf.Tensor | float],
    shift: tuple[tf.Tensor | float, tf.Tensor | float],
) -> tf.Tensor:
    """Puts at every place what was elsewhere, as a `_Move` says."""
    height, width = tf.unstack(tf.cast(tf.shape(image)[:2], tf.float32))
    # By pixel centres: the first is at 0, the last at width - 1.
    center_x, center_y = (width - 1.0) / 2.0, (height - 1.0) / 2.0
    a, b, c, d = matrix
    right = center_x - a * center_x - b * center_y + shift[1] * width
    down = center_y - c * center_x - d * center_y + shift[0] * height
    numbers = [a, b, right, c, d, down, 0.0, 0.0]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=tf.stack([tf.cast(number, tf.float32) for number in numbers])[None],
        output_shape=tf.shape(image)[:2],
        fill_value=_GRAY,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    return _uint8(moved[0])


def _moved_boxes(boxes: tf.Tensor, image: tf.Tensor, move: _Move) -> tf.Tensor:
    """Returns the boxes around the moved corners of boxes [N, 4]; they may reach outside."""
    (a, b, c, d), shift = move
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    ymin, xmin, ymax, xmax = tf.unstack(boxes, axis=1)
    corners = tf.stack([[ymin, xmin], [ymin, xmax], [ymax, xmin], [ymax, xmax]])
    # [corners, (y, x), N], in pixels from the centre. The move leads from the result to the image.
    places = (corners - 0.5 - tf.reshape(tf.stack(shift), [2, 1])) * size[:, None]
    down, right = tf.unstack(places, axis=1)
    determinant = a * d - b * c
    moved = tf.stack([a * down - c * right, d * right - b * down], axis=1) / determinant
    shares = moved / size[:, None] + 0.5
    sides = [tf.reduce_min(shares, axis=0), tf.reduce_max(shares, axis=0)]
    return tf.transpose(tf.concat(sides, axis=0))


def _uint8(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 255.0)), tf.uint8)


# The 14 of the paper, section 3.
OPERATIONS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "identity": _identity,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "rotate": _by("rotate"),
    "solarize": _solarize,
    "color": _color,
    "posterize": _posterize,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "shear_x": _by("shear_x"),
    "shear_y": _by("shear_y"),
    "translate_x": _by("translate_x"),
    "translate_y": _by("translate_y"),
}

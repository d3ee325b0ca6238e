"""Augmentations that change the pixels and leave the boxes where they are.

Examples, seeds and types are those of `augmentation.py`. Ranges are inclusive.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from mnasdet.errors import ConfigError

Example = dict[str, tf.Tensor]

# Changes of `random_distort_color`, the OD API's; brightness as a share of white.
_MAX_BRIGHTNESS, _MAX_HUE = 32 / 255, 0.2
_CONTRAST = _SATURATION = (0.5, 1.5)


def random_adjust_brightness(example: Example, seed: tf.Tensor, *, max_delta: float) -> Example:
    """Adds to all values one number of at most `max_delta`, where 1 is white."""
    return _recolor(example, lambda pixels: _brightness(pixels, seed, max_delta))


def random_adjust_contrast(
    example: Example, seed: tf.Tensor, *, min_delta: float, max_delta: float
) -> Example:
    """Multiplies the distance of the values from their channel's mean by one factor."""
    return _recolor(example, lambda pixels: _contrast(pixels, seed, min_delta, max_delta))


def random_adjust_hue(example: Example, seed: tf.Tensor, *, max_delta: float) -> Example:
    """Turns the hue by at most `max_delta`, where 1 is all the way around."""
    return _recolor(example, lambda pixels: _hue(pixels, seed, max_delta))


def random_adjust_saturation(
    example: Example, seed: tf.Tensor, *, min_delta: float, max_delta: float
) -> Example:
    """Multiplies the saturation by one factor."""
    return _recolor(example, lambda pixels: _saturation(pixels, seed, min_delta, max_delta))


def random_distort_color(example: Example, seed: tf.Tensor, *, color_ordering: int = 0) -> Example:
    """Changes brightness, saturation, hue and contrast, by margins of its own.

    Brightness comes first; then saturation, hue and contrast (`color_ordering` 0) or contrast,
    saturation and hue (1).
    """
    seeds = tf.random.experimental.stateless_split(seed, 4)

    def distort(pixels: tf.Tensor) -> tf.Tensor:
        pixels = _brightness(pixels, seeds[0], _MAX_BRIGHTNESS)
        if color_ordering == 1:
            pixels = _contrast(pixels, seeds[3], *_CONTRAST)
        pixels = _hue(_saturation(pixels, seeds[1], *_SATURATION), seeds[2], _MAX_HUE)
        return pixels if color_ordering == 1 else _contrast(pixels, seeds[3], *_CONTRAST)

    if color_ordering not in (0, 1):
        raise ConfigError(f"random_distort_color: color_ordering {color_ordering}: 0 or 1")
    return _recolor(example, distort)


def random_pixel_value_scale(
    example: Example, seed: tf.Tensor, *, minval: float, maxval: float
) -> Example:
    """Multiplies each value of each pixel by a factor of its own."""
    factors = tf.random.stateless_uniform(tf.shape(example["image"]), seed, minval, maxval)
    return _recolor(example, lambda pixels: tf.minimum(pixels * factors, 255.0))


def random_rgb_to_gray(example: Example, seed: tf.Tensor, *, probability: float) -> Example:
    """Puts the luminance in place of all three channels, with the probability."""
    return _sometimes(
        example,
        tf.random.stateless_uniform([], seed) < probability,
        lambda image: tf.repeat(tf.image.rgb_to_grayscale(image), 3, axis=-1),
    )


def random_jpeg_quality(
    example: Example,
    seed: tf.Tensor,
    *,
    random_coef: float,
    min_jpeg_quality: int,
    max_jpeg_quality: int,
) -> Example:
    """Compresses the image as a JPEG does at a random quality of 0 to 100.

    With the probability `random_coef` the image stays as it is.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    quality = tf.random.stateless_uniform(
        [], seeds[1], min_jpeg_quality, max_jpeg_quality + 1, tf.int32
    )
    return _sometimes(
        example,
        tf.random.stateless_uniform([], seeds[0]) >= random_coef,
        lambda image: tf.image.adjust_jpeg_quality(image, quality),
    )


def random_black_patches(
    example: Example,
    seed: tf.Tensor,
    *,
    max_black_patches: int,
    probability: float,
    size_to_image_ratio: float,
) -> Example:
    """Blackens up to `max_black_patches` squares, each with the probability.

    Args:
      size_to_image_ratio: side of a square over the image's shorter one.
    """
    image = example["image"]
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    draws = tf.random.stateless_uniform([3, max_black_patches], seed)
    side = tf.floor(tf.reduce_min(size) * size_to_image_ratio)
    side = tf.where(draws[0] < probability, side, 0.0)
    begins = tf.floor(draws[1:] * (1.0 - size_to_image_ratio) * size[:, None])
    rows, columns = (_spans(size[axis], begins[axis], begins[axis] + side) for axis in range(2))
    # A pixel is in a patch where both its row and its column are: a product of the two matrices.
    # Here of bytes, three to a pixel: to broadcast over the channels takes twice as long.
    hidden = tf.matmul(rows, tf.repeat(columns, 3, axis=1), transpose_a=True)
    kept = tf.cast(hidden == 0.0, tf.uint8)
    pixels = tf.reshape(image, tf.shape(kept)) * kept
    return {**example, "image": tf.reshape(pixels, tf.shape(image))}


def random_patch_gaussian(
    example: Example,
    seed: tf.Tensor,
    *,
    random_coef: float,
    min_patch_size: int,
    max_patch_size: int,
    min_gaussian_stddev: float,
    max_gaussian_stddev: float,
) -> Example:
    """Adds noise in a square around a random pixel, or none with the probability `random_coef`.

    Lopes et al., "Improving Robustness Without Sacrificing Accuracy with Patch Gaussian
    Augmentation", 2019.

    Args:
      min_patch_size, max_patch_size: side of the square in pixels.
      min_gaussian_stddev, max_gaussian_stddev: standard deviation, where 1 is white.
    """
    seeds = tf.random.experimental.stateless_split(seed, 2)
    draws = tf.random.stateless_uniform([5], seeds[0])
    size = tf.shape(example["image"])[:2]
    side = min_patch_size + _floor(draws[0] * (max_patch_size - min_patch_size + 1))
    begin = _floor(draws[1:3] * tf.cast(size, tf.float32)) - side // 2
    end = tf.minimum(begin + side, size)
    begin = tf.maximum(begin, 0)
    deviation = min_gaussian_stddev + draws[3] * (max_gaussian_stddev - min_gaussian_stddev)
    # Noise of deviation 0 in place of a branch: both sides of a tf.cond have to be traced.
    deviation = tf.where(draws[4] < random_coef, 0.0, 255.0 * deviation)
    noise = deviation * tf.random.stateless_normal(tf.concat([end - begin, [3]], 0), seeds[1])
    margins = tf.concat([tf.stack([begin, size - end], axis=1), [[0, 0]]], 0)
    noise = tf.pad(noise, margins)
    return _recolor(example, lambda pixels: tf.clip_by_value(pixels + noise, 0.0, 255.0))


def _floor(values: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.floor(values), tf.int32)


def _spans(length: tf.Tensor, begins: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    """Returns [spans, length] float32: 1 from each begin to before each end."""
    places = tf.range(length)
    return tf.cast((places >= begins[:, None]) & (places < ends[:, None]), tf.float32)


def _recolor(example: Example, change: Callable[[tf.Tensor], tf.Tensor]) -> Example:
    """Applies `change`, which acts on float32 values from 0 to 255 and stays among them."""
    pixels = change(tf.cast(example["image"], tf.float32))
    # Rounded, not cut: a cut would make every step darken the image by half a level.
    return {**example, "image": tf.cast(tf.round(pixels), tf.uint8)}


def _brightness(pixels: tf.Tensor, seed: tf.Tensor, max_delta: float) -> tf.Tensor:
    delta = tf.random.stateless_uniform([], seed, -max_delta, max_delta)
    return tf.clip_by_value(pixels + 255.0 * delta, 0.0, 255.0)


def _contrast(pixels: tf.Tensor, seed: tf.Tensor, lowest: float, highest: float) -> tf.Tensor:
    factor = tf.random.stateless_uniform([], seed, lowest, highest)
    return tf.clip_by_value(tf.image.adjust_contrast(pixels, factor), 0.0, 255.0)


def _hue(pixels: tf.Tensor, seed: tf.Tensor, max_delta: float) -> tf.Tensor:
    """Turns the hue, which like the saturation is the same at any scale of the values."""
    delta = tf.random.stateless_uniform([], seed, -max_delta, max_delta)
    return tf.clip_by_value(tf.image.adjust_hue(pixels, delta), 0.0, 255.0)


def _saturation(pixels: tf.Tensor, seed: tf.Tensor, lowest: float, highest: float) -> tf.Tensor:
    factor = tf.random.stateless_uniform([], seed, lowest, highest)
    return tf.clip_by_value(tf.image.adjust_saturation(pixels, factor), 0.0, 255.0)


def _sometimes(
    example: Example, condition: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor]
) -> Example:
    image = example["image"]
    image = tf.cond(condition, lambda: change(image), lambda: image)
    return {**example, "image": image}

"""Augmentations that keep all of the image but move it: flips, rotation, scale; and jittered boxes.

Examples, seeds and types are those of `augmentation.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from mnasdet.data import undecoded

Example = dict[str, tf.Tensor]

OF_BOXES = ("boxes", "classes", "is_crowd", "area")


def random_horizontal_flip(
    example: Example, seed: tf.Tensor, *, probability: float = 0.5
) -> Example:
    """Mirrors left and right."""
    ymin, xmin, ymax, xmax = tf.unstack(example["boxes"], axis=1)
    boxes = tf.stack([ymin, 1.0 - xmax, ymax, 1.0 - xmin], axis=1)
    return _sometimes(example, seed, probability, lambda image: undecoded.mirror(image, 1), boxes)


def random_vertical_flip(example: Example, seed: tf.Tensor, *, probability: float = 0.5) -> Example:
    """Mirrors top and bottom."""
    ymin, xmin, ymax, xmax = tf.unstack(example["boxes"], axis=1)
    boxes = tf.stack([1.0 - ymax, xmin, 1.0 - ymin, xmax], axis=1)
    return _sometimes(example, seed, probability, lambda image: undecoded.mirror(image, 0), boxes)


def random_rotation90(example: Example, seed: tf.Tensor, *, probability: float = 0.5) -> Example:
    """Turns by 90 degrees counter-clockwise."""
    ymin, xmin, ymax, xmax = tf.unstack(example["boxes"], axis=1)
    boxes = tf.stack([1.0 - xmax, ymin, 1.0 - xmin, ymax], axis=1)
    return _sometimes(example, seed, probability, tf.image.rot90, boxes)


def random_image_scale(
    example: Example, seed: tf.Tensor, *, min_scale_ratio: float, max_scale_ratio: float
) -> Example:
    """Scales the image, aspect ratio kept, by a factor drawn uniformly; boxes are relative."""
    ratio = tf.random.stateless_uniform([], seed, min_scale_ratio, max_scale_ratio)
    size = tf.cast(tf.shape(example["image"])[:2], tf.float32)
    size = tf.maximum(tf.cast(tf.round(size * ratio), tf.int32), 1)
    return {**example, "image": resize_uint8(example["image"], size)}


def random_downscale_to_target_pixels(
    example: Example,
    seed: tf.Tensor,
    *,
    random_coef: float,
    min_target_pixels: int,
    max_target_pixels: int,
) -> Example:
    """Scales an image of more pixels than a random number down to about that number.

    With the probability `random_coef` the image stays as it is.
    """
    draws = tf.random.stateless_uniform([2], seed)
    target = min_target_pixels + draws[1] * (max_target_pixels - min_target_pixels)
    image = example["image"]
    size = tf.cast(tf.shape(image)[:2], tf.float32)
    # Both sides by the root, so that the number of pixels is scaled by the ratio.
    ratio = tf.sqrt(target / tf.reduce_prod(size))
    smaller = tf.maximum(tf.cast(size * ratio, tf.int32), 1)
    image = tf.cond(
        (draws[0] >= random_coef) & (ratio < 1.0),
        lambda: resize_uint8(image, smaller),
        lambda: image,
    )
    return {**example, "image": image}


def random_self_concat_image(
    example: Example,
    seed: tf.Tensor,
    *,
    concat_vertical_probability: float,
    concat_horizontal_probability: float,
) -> Example:
    """Puts the image with its boxes below itself, and the result beside itself.

    Each happens with its probability.
    """
    draws = tf.random.stateless_uniform([2], seed)
    probabilities = (concat_vertical_probability, concat_horizontal_probability)
    for axis, probability in enumerate(probabilities):
        example = tf.cond(
            draws[axis] < probability,
            functools.partial(_twice, example, axis),
            functools.partial(dict, example),
        )
    return example


def random_jitter_boxes(example: Example, seed: tf.Tensor, *, ratio: float) -> Example:
    """Moves each side of each box by at most `ratio` times the box's height or width."""
    boxes = example["boxes"]
    sides = boxes[:, 2:] - boxes[:, :2]
    shares = tf.random.stateless_uniform(tf.shape(boxes), seed, -ratio, ratio)
    boxes = tf.clip_by_value(boxes + shares * tf.tile(sides, [1, 2]), 0.0, 1.0)
    # A box may lose its size where two sides cross or leave the image.
    return keep_boxes({**example, "boxes": boxes}, tf.reduce_all(boxes[:, :2] < boxes[:, 2:], 1))


def has_boxes(example: Example) -> bool:
    """Returns whether an example can have boxes; one of an image with a class never does."""
    return example["boxes"].shape[0] != 0


def keep_boxes(example: Example, mask: tf.Tensor) -> Example:
    """Drops the boxes, with what belongs to them, that are not in the mask, [N] bool."""
    kept = tf.reshape(tf.where(mask), [-1])
    return {**example, **{key: tf.gather(example[key], kept) for key in OF_BOXES}}


def resize_uint8(image: tf.Tensor, size) -> tf.Tensor:
    """Resizes bilinearly to `size`, (height, width)."""
    # Rounded, not cut: a cut would darken the image by half a level.
    return tf.cast(tf.round(tf.image.resize(image, size)), tf.uint8)


def _twice(example: Example, axis: int) -> Example:
    """Puts the example twice along an axis of the image."""
    shift = tf.tile(0.5 * tf.one_hot(axis, 2), [2])
    boxes = example["boxes"] * (1.0 - shift)
    return {
        **example,
        **{key: tf.concat([example[key]] * 2, 0) for key in OF_BOXES},
        "image": tf.concat([example["image"]] * 2, axis),
        "boxes": tf.concat([boxes, boxes + shift], 0),
    }


def _sometimes(
    example: Example,
    seed: tf.Tensor,
    probability: float,
    turn: Callable[[tf.Tensor], tf.Tensor],
    turned_boxes: tf.Tensor,
) -> Example:
    """Returns the turned image with its boxes, with the probability."""
    image, boxes = example["image"], example["boxes"]
    image, boxes = tf.cond(
        tf.random.stateless_uniform([], seed) < probability,
        lambda: (turn(image), turned_boxes),
        lambda: (image, boxes),
    )
    return {**example, "image": image, "boxes": boxes}

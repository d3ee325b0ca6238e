"""Mosaic (Bochkovskiy et al., "YOLOv4", 2020, section 3.3): four images in one.

Examples, seeds and types are those of `augmentation.py`. It is the one augmentation that needs more
than one example: the three that follow in the order of training, in `others`.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from mnasdet.data import undecoded
from mnasdet.data.crop_augmentation import at_least_a_pixel, random_crop_to_aspect_ratio
from mnasdet.data.geometric_augmentation import OF_BOXES, Example, keep_boxes, resize_uint8
from mnasdet.errors import ConfigError

_OTHERS = "others"
_NUM_OTHERS = 3


def with_others(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the examples of an endless dataset, each with the three that follow it.

    What follows depends on the order alone, so that a stream which starts later goes on with the
    same mosaics.
    """
    empty = tf.nest.map_structure(_empty, dataset.element_spec)

    @tf.autograph.experimental.do_not_convert
    def step(held: tuple[Example, ...], newest: Example) -> tuple[tuple[Example, ...], Example]:
        first, *others = *held, newest
        return tuple(others), {**first, _OTHERS: tuple(others)}

    # The first results are of nothing but what was held at the start.
    return dataset.scan((empty,) * _NUM_OTHERS, step).skip(_NUM_OTHERS)


def of_all(function: Callable[[Example], Example], example: Example) -> Example:
    """Applies a function to an example, and to the others where it has some."""
    alone = _alone(example)
    if _OTHERS not in example:
        return function(alone)
    return {**function(alone), _OTHERS: tuple(map(function, example[_OTHERS]))}


def random_mosaic(
    example: Example,
    seed: tf.Tensor,
    *,
    probability: float,
    output_size: int,
    min_share: float,
    overlap_thresh: float,
) -> Example:
    """Puts the image and the three others into the corners of a square, with the probability.

    Each fills its corner: it is cropped to the corner's shape at a random place, and scaled.

    Args:
      output_size: side of the square in pixels.
      min_share: the corners meet at least this share of the side from the edges.
      overlap_thresh: a box of which less than this share is left is dropped.
    """
    if _OTHERS not in example:
        raise ConfigError("random_mosaic has to be the first of data_augmentation_options")
    seeds = tf.random.experimental.stateless_split(seed, 3)
    alone = _alone(example)

    def mosaic() -> Example:
        share = tf.random.stateless_uniform([2], seeds[1], min_share, 1.0 - min_share)
        # At least a pixel for every corner, whatever the share.
        middle = tf.cast(tf.round(share * output_size), tf.int32)
        middle = tf.clip_by_value(middle, 1, output_size - 1)
        return _mosaic((alone, *example[_OTHERS]), seeds[2], middle, output_size, overlap_thresh)

    return tf.cond(
        tf.random.stateless_uniform([], seeds[0]) < probability,
        mosaic,
        lambda: {**alone, "image": undecoded.pixels(alone["image"])},
    )


def _mosaic(
    examples: tuple[Example, ...],
    seed: tf.Tensor,
    middle: tf.Tensor,
    output_size: int,
    overlap_thresh: float,
) -> Example:
    """Returns the square of four examples: above left, above right, below left, below right.

    Args:
      middle: (y, x) in pixels of the point where the corners meet.
    """
    seeds = tf.random.experimental.stateless_split(seed, len(examples))
    corners = []
    for number, example in enumerate(examples):
        below, right = divmod(number, 2)
        is_far = tf.constant([below == 1, right == 1])
        begin = tf.where(is_far, middle, 0)
        size = tf.where(is_far, output_size - middle, middle)
        corners.append(_corner(example, seeds[number], begin, size, output_size, overlap_thresh))
    images = [corner["image"] for corner in corners]
    rows = [tf.concat(images[:2], 1), tf.concat(images[2:], 1)]
    joined = {key: tf.concat([corner[key] for corner in corners], 0) for key in OF_BOXES}
    square = {**examples[0], **joined, "image": tf.concat(rows, 0)}
    size = tf.constant([output_size, output_size])
    return keep_boxes(square, at_least_a_pixel(square["boxes"], size))


def _corner(
    example: Example,
    seed: tf.Tensor,
    begin: tf.Tensor,
    size: tf.Tensor,
    output_size: int,
    overlap_thresh: float,
) -> Example:
    """Returns the example as it fills the window of `size` at `begin` of the square."""
    height, width = tf.unstack(tf.cast(size, tf.float32))
    part = random_crop_to_aspect_ratio(
        example, seed, aspect_ratio=width / height, overlap_thresh=overlap_thresh
    )
    image = resize_uint8(undecoded.pixels(part["image"]), size)
    scale, offset = (tf.cast(tf.tile(value, [2]), tf.float32) for value in (size, begin))
    return {**part, "image": image, "boxes": (part["boxes"] * scale + offset) / output_size}


def _alone(example: Example) -> Example:
    return {key: value for key, value in example.items() if key != _OTHERS}


def _empty(spec: tf.TensorSpec) -> tf.Tensor:
    return tf.zeros([size or 0 for size in spec.shape], spec.dtype)

"""Augmentations that show a part of the image.

Examples, seeds and types are those of `augmentation.py`. A window is its begin and its size, (y, x)
in pixels, int32 [2] each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from mnasdet.data import undecoded
from mnasdet.data.geometric_augmentation import Example, has_boxes, keep_boxes
from mnasdet.errors import ConfigError


@dataclass(frozen=True)
class CropOperation:
    """How a random crop is drawn.

    Attributes:
      min_object_covered: the crop holds at least this share of one box.
      aspect_ratio_range: width over height of the crop.
      area_range: share of the image's area.
      overlap_thresh: a box of which less than this share is left is dropped.
      random_coef: probability of leaving the image as it is.
    """

    min_object_covered: float
    aspect_ratio_range: tuple[float, float]
    area_range: tuple[float, float]
    overlap_thresh: float
    random_coef: float

    @classmethod
    def from_proto(cls, proto: Any, name: str) -> CropOperation:
        """Reads an operation. Raises ConfigError, with the proto's field, for impossible ranges.

        Args:
          proto: RandomCropImage, RandomCropPadImage or an operation of one of the SSD crops.
        """
        aspect_ratios = (1.0, 1.0)
        if "min_aspect_ratio" in proto.DESCRIPTOR.fields_by_name:
            aspect_ratios = _range(proto, "aspect_ratio", name)
        areas = _range(proto, "area", name)
        if proto.max_area > 1:
            raise ConfigError(f"{name}: max_area {proto.max_area:g}: at most 1, the whole image")
        return cls(
            proto.min_object_covered, aspect_ratios, areas, proto.overlap_thresh, proto.random_coef
        )


# Liu et al., "SSD: Single Shot MultiBox Detector", 2016, section 2.2: the whole image, patches of
# a least overlap with an object, and any patch; the numbers are the OD API's.
SSD_CROP_OPERATIONS = tuple(
    CropOperation(overlap, (0.5, 2.0), (0.1, 1.0), overlap, 0.15)
    for overlap in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
)

# The OD API's threshold of the second crop of ssd_random_crop_fixed_aspect_ratio;
# random_crop_to_aspect_ratio has the same default.
_OVERLAP_THRESH = 0.3


def random_crop_image(example: Example, seed: tf.Tensor, operation: CropOperation) -> Example:
    """Crops to a window that covers enough of one box; drops the boxes with too little left."""
    return ssd_random_crop(example, seed, [operation])


def ssd_random_crop(
    example: Example,
    seed: tf.Tensor,
    operations: Sequence[CropOperation] = SSD_CROP_OPERATIONS,
) -> Example:
    """Crops by one of the operations, drawn uniformly."""
    seeds = tf.random.experimental.stateless_split(seed, 3)
    return crop_by(example, seeds[1:], operations, choice(seeds[0], len(operations)))


def ssd_random_crop_fixed_aspect_ratio(
    example: Example,
    seed: tf.Tensor,
    operations: Sequence[CropOperation] = SSD_CROP_OPERATIONS,
    aspect_ratio: float = 1.0,
) -> Example:
    """Crops as `ssd_random_crop` to one shape; an image left whole is cropped to it as well."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    shape = (aspect_ratio, aspect_ratio)
    operations = [
        dataclasses.replace(operation, aspect_ratio_range=shape) for operation in operations
    ]
    example = ssd_random_crop(example, seeds[0], operations)
    return random_crop_to_aspect_ratio(
        example, seeds[1], aspect_ratio=aspect_ratio, overlap_thresh=_OVERLAP_THRESH
    )


def random_crop_to_aspect_ratio(
    example: Example, seed: tf.Tensor, *, aspect_ratio: float | tf.Tensor, overlap_thresh: float
) -> Example:
    """Crops to the largest window of that width over height, at a random place."""
    size = undecoded.size_of(example["image"])
    height, width = tf.unstack(tf.cast(size, tf.float32))
    window = tf.minimum([height, width], [width / aspect_ratio, height * aspect_ratio])
    # A very flat image may leave less than half a pixel.
    window = tf.maximum(tf.cast(tf.round(window), tf.int32), 1)
    begin = uniform_ints(seed, tf.zeros_like(size), size - window)
    return crop(example, begin, window, overlap_thresh)


class _Window:
    """Draws a window, as a branch of switch_case."""

    def __init__(self, example: Example, seed: tf.Tensor, operation: CropOperation):
        self._example, self._seed, self._operation = example, seed, operation

    def __call__(self) -> tuple[tf.Tensor, tf.Tensor]:
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.concat([undecoded.size_of(self._example["image"]), [3]], 0),
            self._example["boxes"][None],
            self._seed,
            min_object_covered=self._operation.min_object_covered,
            aspect_ratio_range=self._operation.aspect_ratio_range,
            area_range=self._operation.area_range,
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        return begin[:2], size[:2]


def crop_by(
    example: Example, seeds: tf.Tensor, operations: Sequence[CropOperation], index: tf.Tensor | int
) -> Example:
    """Crops by operation number `index`, or leaves the image with its random_coef."""
    overlap_thresh = tf.constant([operation.overlap_thresh for operation in operations])[index]
    random_coefs = [operation.random_coef for operation in operations]
    windows = [_Window(example, seeds[0], operation) for operation in operations]

    def cropped() -> Example:
        # switch_case traces every branch; with one operation there is nothing to choose.
        begin, size = windows[0]() if len(windows) == 1 else tf.switch_case(index, windows)
        return crop(example, begin, size, overlap_thresh)

    # Without such a probability no branch is needed.
    if not any(random_coefs):
        return cropped()
    untouched = tf.random.stateless_uniform([], seeds[1]) < tf.constant(random_coefs)[index]
    return tf.cond(untouched, lambda: dict(example), cropped)


def crop(
    example: Example, begin: tf.Tensor, size: tf.Tensor, overlap_thresh: tf.Tensor | float
) -> Example:
    """Crops to the window of `size` at `begin`.

    A box is kept when at least `overlap_thresh` of its area is in the window, and a pixel.
    """
    image = example["image"]
    window = undecoded.cut(image, begin, size)
    if not has_boxes(example):
        return {**example, "image": window}
    image_size = tf.cast(undecoded.size_of(image), tf.float32)
    pixels = example["boxes"] * tf.tile(image_size, [2]) - tf.cast(tf.tile(begin, [2]), tf.float32)
    moved = pixels / tf.cast(tf.tile(size, [2]), tf.float32)
    return keep_visible({**example, "image": window, "boxes": moved}, overlap_thresh)


def keep_visible(example: Example, overlap_thresh: tf.Tensor | float) -> Example:
    """Cuts the boxes at the edges of the image.

    A box is kept when at least `overlap_thresh` of its area is left, and a pixel.
    """
    boxes = example["boxes"]
    clipped = tf.clip_by_value(boxes, 0.0, 1.0)
    # A thousandth for rounding: a box that fits the image exactly is whole.
    enough = _areas(clipped) >= (overlap_thresh - 1e-3) * _areas(boxes)
    enough &= at_least_a_pixel(clipped, undecoded.size_of(example["image"]))
    return keep_boxes({**example, "boxes": clipped}, enough)


def choice(seed: tf.Tensor, count: int) -> tf.Tensor | int:
    """Draws one of 0 to `count` - 1."""
    # A Python number for a single choice: the graph then needs no switch.
    return tf.random.stateless_uniform([], seed, 0, count, tf.int32) if count > 1 else 0


def uniform_ints(seed: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Draws [2] int32, each between its low and its high, both included."""
    draws = tf.random.stateless_uniform([2], seed)
    steps = tf.floor(draws * tf.cast(high - low + 1, tf.float32))
    # A draw just below 1 may round up to the number of steps.
    return tf.minimum(low + tf.cast(steps, tf.int32), high)


def _areas(boxes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def at_least_a_pixel(boxes: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]) * tf.cast(size, tf.float32)
    # Below 1 for rounding: a pixel that is whole counts.
    return tf.reduce_all(sides >= 0.999, axis=1)


def _range(proto: Any, field: str, name: str) -> tuple[float, float]:
    low, high = getattr(proto, f"min_{field}"), getattr(proto, f"max_{field}")
    if not 0 < low <= high:
        raise ConfigError(
            f"{name}: min_{field} {low:g} and max_{field} {high:g}: "
            "the smallest must be above 0 and not above the largest"
        )
    return low, high

"""Augmentations of one example, each a function of the example and a seed.

They act on the decoded uint8 image at its original size and on what belongs to its boxes: `boxes`
[N, 4] normalised (ymin, xmin, ymax, xmax), `classes`, `is_crowd` and `area` [N]. `area` stays that
of the object in the original image. Randomness is stateless: the same seed, shape [2], gives the
same result wherever it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from mnasdet.errors import ConfigError
from mnasdet.protos import train_pb2

Example = dict[str, tf.Tensor]

_OF_BOXES = ("boxes", "classes", "is_crowd", "area")


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
    def from_proto(
        cls, proto: train_pb2.RandomCropImage | train_pb2.SSDRandomCropOperation, name: str
    ) -> CropOperation:
        """Raises ConfigError, with the name of the proto's field, for ranges that are none."""
        for field in ("aspect_ratio", "area"):
            low, high = getattr(proto, f"min_{field}"), getattr(proto, f"max_{field}")
            if not 0 < low <= high:
                raise ConfigError(
                    f"{name}: min_{field} {low:g} and max_{field} {high:g}: "
                    "the smallest must be above 0 and not above the largest"
                )
        if proto.max_area > 1:
            raise ConfigError(f"{name}: max_area {proto.max_area:g}: at most 1, the whole image")
        return cls(
            proto.min_object_covered,
            (proto.min_aspect_ratio, proto.max_aspect_ratio),
            (proto.min_area, proto.max_area),
            proto.overlap_thresh,
            proto.random_coef,
        )


# Liu et al., "SSD: Single Shot MultiBox Detector", 2016, section 2.2: the whole image, patches of
# a least overlap with an object, and any patch; the numbers are the OD API's.
SSD_CROP_OPERATIONS = tuple(
    CropOperation(overlap, (0.5, 2.0), (0.1, 1.0), overlap, 0.15)
    for overlap in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
)


def augment(
    example: Example, steps: Sequence[train_pb2.PreprocessingStep], seed: tf.Tensor
) -> Example:
    """Applies the steps in their order, each with a seed of its own."""
    for position, step in enumerate(steps):
        step_seed = tf.random.experimental.stateless_fold_in(seed, position)
        example = _apply(example, step, step_seed)
    return example


def random_horizontal_flip(example: Example, seed: tf.Tensor) -> Example:
    """Mirrors left and right with probability 0.5."""
    ymin, xmin, ymax, xmax = tf.unstack(example["boxes"], axis=1)
    return _flip(example, seed, 1, tf.stack([ymin, 1.0 - xmax, ymax, 1.0 - xmin], axis=1))


def random_vertical_flip(example: Example, seed: tf.Tensor) -> Example:
    """Mirrors top and bottom with probability 0.5."""
    ymin, xmin, ymax, xmax = tf.unstack(example["boxes"], axis=1)
    return _flip(example, seed, 0, tf.stack([1.0 - ymax, xmin, 1.0 - ymin, xmax], axis=1))


def random_image_scale(
    example: Example, seed: tf.Tensor, *, min_scale_ratio: float, max_scale_ratio: float
) -> Example:
    """Scales the image, aspect ratio kept, by a factor drawn uniformly; boxes are relative."""
    ratio = tf.random.stateless_uniform([], seed, min_scale_ratio, max_scale_ratio)
    size = tf.cast(tf.shape(example["image"])[:2], tf.float32)
    size = tf.maximum(tf.cast(tf.round(size * ratio), tf.int32), 1)
    return {**example, "image": _resize_uint8(example["image"], size)}


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
    index = tf.random.stateless_uniform([], seeds[0], 0, len(operations), tf.int32)
    random_coef = tf.constant([operation.random_coef for operation in operations])[index]
    overlap_thresh = tf.constant([operation.overlap_thresh for operation in operations])[index]

    def crop() -> Example:
        begin, size = tf.switch_case(
            index, [_Window(example, seeds[1], operation) for operation in operations]
        )
        return _crop(example, begin, size, overlap_thresh)

    untouched = tf.random.stateless_uniform([], seeds[2]) < random_coef
    return tf.cond(untouched, lambda: dict(example), crop)


def random_scale_crop_and_pad_to_square(
    example: Example, seed: tf.Tensor, *, output_size: int, scale_min: float, scale_max: float
) -> Example:
    """Scale jitter (Tan et al., "EfficientDet", 2020, section 5.1).

    The longer side becomes `output_size` times a random scale; what is too large is cropped at a
    random place, what is too small is padded with black to the right and below.
    """
    draws = tf.random.stateless_uniform([3], seed)
    size = tf.cast(tf.shape(example["image"])[:2], tf.float32)
    scale = scale_min + draws[0] * (scale_max - scale_min)
    ratio = output_size * scale / tf.reduce_max(size)
    # The window is cut out of the original image, so that no more is scaled than is kept.
    window = tf.minimum(tf.maximum(tf.round(output_size / ratio), 1.0), size)
    begin = tf.floor(draws[1:] * (size - window + 1.0))
    example = _crop(
        example, tf.cast(begin, tf.int32), tf.cast(window, tf.int32), overlap_thresh=0.0
    )
    scaled = tf.clip_by_value(tf.round(window * ratio), 1.0, float(output_size))
    rows, columns = tf.unstack(tf.cast(scaled, tf.int32))
    image = _resize_uint8(example["image"], [rows, columns])
    image = tf.pad(image, [[0, output_size - rows], [0, output_size - columns], [0, 0]])
    boxes = example["boxes"] * tf.tile(scaled / output_size, [2])
    example = {
        **example,
        "image": tf.ensure_shape(image, [output_size, output_size, 3]),
        "boxes": boxes,
    }
    return _keep(example, _at_least_a_pixel(boxes, tf.constant([output_size, output_size])))


class _Window:
    """Draws a window: begin and size, (y, x) in pixels, int32 [2]. A branch of switch_case."""

    def __init__(self, example: Example, seed: tf.Tensor, operation: CropOperation):
        self._example, self._seed, self._operation = example, seed, operation

    def __call__(self) -> tuple[tf.Tensor, tf.Tensor]:
        begin, size, _ = tf.image.stateless_sample_distorted_bounding_box(
            tf.shape(self._example["image"]),
            self._example["boxes"][None],
            self._seed,
            min_object_covered=self._operation.min_object_covered,
            aspect_ratio_range=self._operation.aspect_ratio_range,
            area_range=self._operation.area_range,
            max_attempts=100,
            use_image_if_no_bounding_boxes=True,
        )
        return begin[:2], size[:2]


def _apply(example: Example, step: train_pb2.PreprocessingStep, seed: tf.Tensor) -> Example:
    match step.WhichOneof("preprocessing_step"):
        case "random_horizontal_flip":
            return random_horizontal_flip(example, seed)
        case "random_vertical_flip":
            return random_vertical_flip(example, seed)
        case "random_image_scale":
            scale = step.random_image_scale
            return random_image_scale(
                example,
                seed,
                min_scale_ratio=scale.min_scale_ratio,
                max_scale_ratio=scale.max_scale_ratio,
            )
        case "random_crop_image":
            crop = CropOperation.from_proto(step.random_crop_image, "random_crop_image")
            return random_crop_image(example, seed, crop)
        case "ssd_random_crop":
            operations = [
                CropOperation.from_proto(operation, f"ssd_random_crop.operations[{i}]")
                for i, operation in enumerate(step.ssd_random_crop.operations)
            ]
            return ssd_random_crop(example, seed, operations or SSD_CROP_OPERATIONS)
        case "random_scale_crop_and_pad_to_square":
            jitter = step.random_scale_crop_and_pad_to_square
            return random_scale_crop_and_pad_to_square(
                example,
                seed,
                output_size=jitter.output_size,
                scale_min=jitter.scale_min,
                scale_max=jitter.scale_max,
            )
    raise ConfigError("data_augmentation_options: an entry names no operation")


def _flip(example: Example, seed: tf.Tensor, axis: int, flipped: tf.Tensor) -> Example:
    flip = tf.random.stateless_uniform([], seed) < 0.5
    image, boxes = example["image"], example["boxes"]
    image, boxes = tf.cond(
        flip, lambda: (tf.reverse(image, [axis]), flipped), lambda: (image, boxes)
    )
    return {**example, "image": image, "boxes": boxes}


def _crop(
    example: Example, begin: tf.Tensor, size: tf.Tensor, overlap_thresh: tf.Tensor | float
) -> Example:
    """Crops to the window of `size` pixels at `begin`, both (y, x).

    A box is kept when at least `overlap_thresh` of its area is in the window, and a pixel.
    """
    image = example["image"]
    origin = tf.concat([begin, [0]], 0)
    image_size = tf.cast(tf.shape(image)[:2], tf.float32)
    pixels = example["boxes"] * tf.tile(image_size, [2]) - tf.cast(tf.tile(begin, [2]), tf.float32)
    moved = pixels / tf.cast(tf.tile(size, [2]), tf.float32)
    clipped = tf.clip_by_value(moved, 0.0, 1.0)
    # A thousandth for rounding: a box that fits the window exactly is whole.
    enough = _areas(clipped) >= (overlap_thresh - 1e-3) * _areas(moved)
    cropped = {
        **example,
        "image": tf.slice(image, origin, tf.concat([size, [3]], 0)),
        "boxes": clipped,
    }
    return _keep(cropped, enough & _at_least_a_pixel(clipped, size))


def _keep(example: Example, mask: tf.Tensor) -> Example:
    return {**example, **{key: tf.boolean_mask(example[key], mask) for key in _OF_BOXES}}


def _areas(boxes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], axis=1)


def _at_least_a_pixel(boxes: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    sides = (boxes[:, 2:] - boxes[:, :2]) * tf.cast(size, tf.float32)
    return tf.reduce_all(sides >= 0.999, axis=1)


def _resize_uint8(image: tf.Tensor, size) -> tf.Tensor:
    return tf.cast(tf.round(tf.image.resize(image, size)), tf.uint8)

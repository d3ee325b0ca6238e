"""Augmentations of one example, as `data_augmentation_options` names them.

Each is a function of the example and a seed, of the name that its field of `PreprocessingStep` has.
They act on the decoded uint8 image at its original size and on what belongs to its boxes: `boxes`
[N, 4] normalised (ymin, xmin, ymax, xmax), `classes`, `is_crowd` and `area` [N]. `area` stays that
of the object in the original image. Randomness is stateless: the same seed, shape [2], gives the
same result wherever it runs.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from mnasdet.data import color_augmentation as color
from mnasdet.data import crop_augmentation as crops
from mnasdet.data import geometric_augmentation as geometry
from mnasdet.data import pad_augmentation as pads
from mnasdet.data import undecoded
from mnasdet.data.mosaic import random_mosaic
from mnasdet.data.rand_augmentation import rand_augment
from mnasdet.errors import ConfigError
from mnasdet.protos import preprocessor_pb2

Example = dict[str, tf.Tensor]
Augmentation = Callable[[Example, tf.Tensor], Example]

_FUNCTIONS: dict[str, Callable[..., Example]] = {
    function.__name__: function
    for function in (
        geometry.random_horizontal_flip,
        geometry.random_vertical_flip,
        geometry.random_rotation90,
        geometry.random_image_scale,
        geometry.random_downscale_to_target_pixels,
        geometry.random_self_concat_image,
        geometry.random_jitter_boxes,
        crops.random_crop_image,
        crops.random_crop_to_aspect_ratio,
        crops.ssd_random_crop,
        crops.ssd_random_crop_fixed_aspect_ratio,
        pads.random_pad_image,
        pads.random_absolute_pad_image,
        pads.random_crop_pad_image,
        pads.ssd_random_crop_pad,
        pads.random_square_crop_by_scale,
        pads.random_scale_crop_and_pad_to_square,
        color.random_pixel_value_scale,
        color.random_rgb_to_gray,
        color.random_adjust_brightness,
        color.random_adjust_contrast,
        color.random_adjust_hue,
        color.random_adjust_saturation,
        color.random_distort_color,
        color.random_black_patches,
        color.random_jpeg_quality,
        color.random_patch_gaussian,
        rand_augment,
        random_mosaic,
    )
}

# These take an `Undecoded` image: the part to decode is drawn ahead of the pixels.
_CROPS = {
    "random_mosaic",
    "random_crop_image",
    "random_crop_to_aspect_ratio",
    "ssd_random_crop",
    "ssd_random_crop_fixed_aspect_ratio",
    "random_crop_pad_image",
    "ssd_random_crop_pad",
    "random_square_crop_by_scale",
    "random_scale_crop_and_pad_to_square",
}
_AHEAD_OF_PIXELS = _CROPS | {
    "random_horizontal_flip",
    "random_vertical_flip",
    "random_jitter_boxes",
}


def needs_others(steps: Sequence[preprocessor_pb2.PreprocessingStep]) -> bool:
    """Returns whether the steps make one image of several examples."""
    return any(step.HasField("random_mosaic") for step in steps)


def crops_first(steps: Sequence[preprocessor_pb2.PreprocessingStep]) -> bool:
    """Returns whether the steps choose a part of the image before one needs its pixels."""
    names = [step.WhichOneof("preprocessing_step") for step in steps]
    return any(name in _CROPS for name in itertools.takewhile(_AHEAD_OF_PIXELS.__contains__, names))


def augment(
    example: Example, steps: Sequence[preprocessor_pb2.PreprocessingStep], seed: tf.Tensor
) -> Example:
    """Applies the steps in their order, each with a seed of its own.

    Args:
      example: its image may be `Undecoded`; the result's never is.
    """
    for position, step in enumerate(steps):
        # By position: a further step at the end leaves the draws of those before it as they are.
        step_seed = tf.random.experimental.stateless_fold_in(seed, position)
        if step.WhichOneof("preprocessing_step") not in _AHEAD_OF_PIXELS:
            example = _with_pixels(example)
        example = from_proto(step)(example, step_seed)
    return _with_pixels(example)


def _with_pixels(example: Example) -> Example:
    return {**example, "image": undecoded.pixels(example["image"])}


def from_proto(step: preprocessor_pb2.PreprocessingStep) -> Augmentation:
    """Returns the function that a step names. Raises ConfigError for impossible arguments."""
    name = step.WhichOneof("preprocessing_step")
    if not name:
        raise ConfigError("data_augmentation_options: an entry names no operation")
    return functools.partial(_FUNCTIONS[name], **_arguments(getattr(step, name), name))


def _arguments(message: Any, name: str) -> dict[str, Any]:
    """Returns the arguments of the function of that name, from a message.

    They are the message's fields, but for crops; keypoints are left out, as records have none.
    """
    crop, pad = crops.CropOperation.from_proto, pads.PadOperation.from_proto
    match name:
        case "random_crop_image":
            return {"operation": crop(message, name)}
        case "random_crop_pad_image":
            return {"operation": crop(message, name), "padding": pad(message, name)}
    names = [field.name for field in message.DESCRIPTOR.fields if "keypoint" not in field.name]
    arguments = {name: getattr(message, name) for name in names}
    operations = [
        (crop(proto, path), pad(proto, path)) if "pad" in name else crop(proto, path)
        for proto, path in _numbered(arguments.pop("operations", ()), name)
    ]
    # Without any, the function's own.
    return {**arguments, "operations": operations} if operations else arguments


def _numbered(operations: Sequence[Any], name: str) -> list[tuple[Any, str]]:
    """Returns the operations of a step, each with its path for messages."""
    return [(proto, f"{name}.operations[{i}]") for i, proto in enumerate(operations)]

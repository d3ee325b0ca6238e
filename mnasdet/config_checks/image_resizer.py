"""The rules that an image resizer has to fulfil beyond its syntax."""

from __future__ import annotations

from mnasdet.architectures import input_size, smallest_image_size
from mnasdet.config_checks.layers import MAX_IMAGE_SIZE
from mnasdet.config_checks.section import Section
from mnasdet.protos import architecture_pb2


def check_resizer(
    resizer: Section, architecture: architecture_pb2.Architecture | None
) -> tuple[int, int]:
    """Checks the member that is set, and the size of the architecture's own that replaces its.

    Args:
      architecture: what the model builds, as far as that is known.

    Returns:
      (height, width) of the network's input in pixels.
    """
    size = input_size(architecture) if architecture else None
    smallest = smallest_image_size(architecture) if architecture else 1
    # The architecture's input replaces the member's size, which then may be any size.
    _check_member(resizer, 1 if size else smallest)
    if size and min(size) < smallest:
        resizer.problems.append(
            f"model.architecture.input is {size[0]}x{size[1]}; at least {smallest} is allowed"
        )
    message = resizer.message
    if message.DESCRIPTOR.name == "KeepAspectRatioResizer":
        return size or (message.max_dimension, message.max_dimension)
    return size or (message.height, message.width)


def _check_member(resizer: Section, smallest: int) -> None:
    if resizer.message.DESCRIPTOR.name != "KeepAspectRatioResizer":
        for name in ("height", "width"):
            resizer.at_least(name, smallest)
            resizer.at_most(name, MAX_IMAGE_SIZE)
        if resizer.message.DESCRIPTOR.name == "CenterCropResizer":
            resizer.positive("crop_fraction")
            resizer.at_most("crop_fraction", 1)
        return
    resizer.at_least("min_dimension", 1)
    resizer.at_least("max_dimension", smallest)
    resizer.at_most("max_dimension", MAX_IMAGE_SIZE)
    resizer.ordered("min_dimension", "max_dimension")
    colors = len(resizer.message.per_channel_pad_value)
    if colors not in (0, 3):
        resizer.report("per_channel_pad_value", f"has {colors} values; 3 are needed")

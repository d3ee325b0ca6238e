"""Weights in the safetensors format, as torchvision's and timm's are published."""

from __future__ import annotations

from mnasdet.errors import CheckpointError
from mnasdet.training.warm_start.source import Source

FORMAT = "a safetensors file"


def matches(start: bytes) -> bool:
    """Tells by its first bytes whether a file has this format.

    They are the length of the header, eight bytes of which the last ones are 0, and the header, an
    object in JSON.
    """
    return len(start) > 8 and start[5:8] == b"\0\0\0" and start[8:9] == b"{"


def open_source(path: str) -> Source:
    """Opens a file.

    Raises:
      CheckpointError: it is damaged.
    """
    import safetensors

    try:
        file = safetensors.safe_open(path, framework="numpy")
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: is a damaged safetensors file: {reason}") from None
    return Source(path, FORMAT, shapes, file.get_tensor)

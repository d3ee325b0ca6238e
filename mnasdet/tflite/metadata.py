"""TFLite metadata: what Android's Task library and MediaPipe read from a model file.

A flatbuffer of the public schema, metadata_schema.fbs of tflite-support, in a buffer of the model;
the label map is a file in a zip file after the model. The numbers of fields and of members of
unions below are that schema's. The writers that exist need another protobuf (tflite-support) or
OpenCV and a sound library (mediapipe).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flatbuffers import Builder

from mnasdet.tflite import graph_file
from mnasdet.tflite.graph_file import schema

NAME = "TFLITE_METADATA"
IDENTIFIER = b"M001"
LABELS_FILE = "labelmap.txt"

# Older parsers know all fields that are written here.
_MIN_PARSER_VERSION = "1.0.0"

# enum AssociatedFileType: what the places along an axis are; what the values are.
AXIS_LABELS, VALUE_LABELS = 2, 3

# The line of class ids that the label map leaves out: the places of the others have to stay.
_NO_LABEL = "???"

_RGB = 1  # enum ColorSpaceType
_BOUNDARIES, _RATIO = 1, 0  # enums BoundingBoxType and CoordinateType
_IMAGE, _BOUNDING_BOX = 2, 3  # union ContentProperties
_NORMALIZATION = 1  # union ProcessUnitOptions

# The normalisation x * 2 / 255 - 1 as (x - mean) / std.
_MEAN = _STD = 127.5

# Writes a table and returns its place.
_Table = Callable[[Builder], int]


@dataclass(frozen=True)
class Tensor:
    """A TensorMetadata table.

    Attributes:
      content: of the tensor's values, if there is a kind for it: (ContentProperties, the table).
      value_range: the dimensions (first, last) that one such content takes; all but the batch.
      normalization: (mean, std) of what gets into the model: (x - mean) / std.
      limits: (least, largest) value.
      labels: AXIS_LABELS or VALUE_LABELS of the label map; 0: none.
    """

    name: str
    description: str
    content: tuple[int, _Table] | None = None
    value_range: tuple[int, int] | None = None
    normalization: tuple[float, float] | None = None
    limits: tuple[float, float] | None = None
    labels: int = 0


@dataclass(frozen=True)
class Model:
    """A ModelMetadata table with one subgraph."""

    name: str
    description: str
    version: str
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor] = field(default_factory=tuple)


def attach(model: schema.ModelT, description: Model) -> None:
    """Puts the metadata into a model that has none.

    Where a tensor has labels, `label_file` has to be appended to the model's file.
    """
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME, graph_file.add_buffer(model, encode(description))
    model.metadata.append(entry)


def label_file(names: Mapping[int, str], background: str | None = None) -> bytes:
    """Returns a line for every class from 1 on.

    Args:
      names: by class id.
      background: what stands on a line of its own before them, if anything.
    """
    lines = [names.get(number, _NO_LABEL) for number in range(1, max(names) + 1)]
    if background is not None:
        lines.insert(0, background)
    return ("\n".join(lines) + "\n").encode()


def read_labels(path: str | os.PathLike, background: bool) -> dict[int, str]:
    """Returns the class names in a TFLite file by class id, from 1; none where it has none.

    Args:
      background: the first line is the background's.
    """
    # Files that belong to a TFLite file are a zip archive at its end.
    if not zipfile.is_zipfile(path):
        return {}
    with zipfile.ZipFile(path) as archive:
        if LABELS_FILE not in archive.namelist():
            return {}
        # Not splitlines: a name may have other characters in it that break lines.
        lines = archive.read(LABELS_FILE).decode().removesuffix("\n").split("\n")
    names = enumerate(lines, start=0 if background else 1)
    return {number: name for number, name in names if number and name != _NO_LABEL}


def encode(model: Model) -> bytes:
    """Returns the metadata's flatbuffer."""
    b = Builder(1024)
    subgraph = _table(
        b, 7, {2: _vector(b, model.inputs, _tensor), 3: _vector(b, model.outputs, _tensor)}
    )
    root = _table(
        b,
        8,
        {
            0: b.CreateString(model.name),
            1: b.CreateString(model.description),
            2: b.CreateString(model.version),
            3: _offsets(b, [subgraph]),
            7: b.CreateString(_MIN_PARSER_VERSION),
        },
    )
    b.Finish(root, IDENTIFIER)
    return bytes(b.Output())


def image(height: int, width: int) -> tuple[int, _Table]:
    """Describes a tensor as an RGB image."""

    def write(b: Builder) -> int:
        size = _table(b, 2, {}, lambda: _uint32(b, {0: width, 1: height}))
        return _table(b, 2, {1: size}, lambda: b.PrependInt8Slot(0, _RGB, 0))

    return _IMAGE, write


def image_tensor(image_size: tuple[int, int], input_type: str) -> Tensor:
    """Returns the description of a model's input.

    Args:
      image_size: (height, width) in pixels.
      input_type: float32 or uint8.
    """
    pixels = input_type == "uint8"
    return Tensor(
        "image",
        "RGB pixels, " + ("0 to 255." if pixels else "normalised to -1 to 1."),
        content=image(*image_size),
        # A quantised input, too, has the numbers of the network in float32.
        normalization=(_MEAN, _STD),
        limits=(0.0, 255.0) if pixels else (-1.0, 1.0),
    )


def bounding_box() -> tuple[int, _Table]:
    """Describes a tensor as boxes (ymin, xmin, ymax, xmax), normalised."""

    def write(b: Builder) -> int:
        # The places of left, top, right, bottom.
        index = _numbers(b, [1, 0, 3, 2], b.PrependUint32)

        def kinds() -> None:
            b.PrependInt8Slot(1, _BOUNDARIES, 0)
            b.PrependInt8Slot(2, _RATIO, 0)

        return _table(b, 3, {0: index}, kinds)

    return _BOUNDING_BOX, write


def _tensor(b: Builder, tensor: Tensor) -> int:
    fields = {0: b.CreateString(tensor.name), 1: b.CreateString(tensor.description)}
    if tensor.content:
        fields[3] = _content(b, tensor)
    if tensor.normalization:
        mean, std = (_numbers(b, [value], b.PrependFloat32) for value in tensor.normalization)
        options = _table(b, 2, {0: mean, 1: std})
        unit = _table(b, 2, {1: options}, lambda: b.PrependUint8Slot(0, _NORMALIZATION, 0))
        fields[4] = _offsets(b, [unit])
    if tensor.limits:
        least, largest = (_numbers(b, [value], b.PrependFloat32) for value in tensor.limits)
        fields[5] = _table(b, 2, {0: largest, 1: least})
    if tensor.labels:
        fields[6] = _vector(b, [tensor.labels], _associated_file)
    return _table(b, 7, fields)


def _content(b: Builder, tensor: Tensor) -> int:
    assert tensor.content
    kind, write = tensor.content
    fields = {1: write(b)}
    if tensor.value_range:
        first, last = tensor.value_range

        def limits() -> None:
            b.PrependInt32Slot(0, first, 0)
            b.PrependInt32Slot(1, last, 0)

        fields[2] = _table(b, 2, {}, limits)
    return _table(b, 3, fields, lambda: b.PrependUint8Slot(0, kind, 0))


def _associated_file(b: Builder, kind: int) -> int:
    fields = {
        0: b.CreateString(LABELS_FILE),
        1: b.CreateString("Class names, one a line."),
    }
    return _table(b, 4, fields, lambda: b.PrependInt8Slot(2, kind, 0))


def _table(
    b: Builder, size: int, offsets: Mapping[int, int], scalars: Callable[[], None] | None = None
) -> int:
    """Adds a table of `size` fields, and returns its place.

    Args:
      offsets: the places of strings, vectors and tables, by field.
      scalars: adds the other fields.
    """
    b.StartObject(size)
    for slot, offset in offsets.items():
        b.PrependUOffsetTRelativeSlot(slot, offset, 0)
    if scalars:
        scalars()
    return b.EndObject()


def _uint32(b: Builder, values: Mapping[int, int]) -> None:
    for slot, value in values.items():
        b.PrependUint32Slot(slot, value, 0)


def _vector(b: Builder, values: Sequence, write: Callable[[Builder, Any], int]) -> int:
    return _offsets(b, [write(b, value) for value in values])


def _offsets(b: Builder, offsets: Sequence[int]) -> int:
    return _numbers(b, offsets, b.PrependUOffsetTRelative)


def _numbers(b: Builder, values: Sequence, prepend: Callable) -> int:
    """Adds a vector of numbers of four bytes, and returns its place."""
    b.StartVector(4, len(values), 4)
    # Flatbuffers are written from the end.
    for value in reversed(values):
        prepend(value)
    return b.EndVector()

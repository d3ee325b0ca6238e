"""Layers of Hit-Detector's operations, written and read: "op_ir-k5-d2-e6_c96_s2".

The operations of a supernet's layer are joined by a plus.
"""

from __future__ import annotations

from collections.abc import Iterable

from mnasdet.architecture_string.grammar import Piece, fail, options
from mnasdet.architecture_string.words import read_options, write_options
from mnasdet.errors import ConfigError, nearest
from mnasdet.operation_names import parse
from mnasdet.protos import architecture_pb2

_OPTIONS = options("c=channels s=stride")

# The field of each word of a pyramid, by what the word begins with.
_PYRAMID = {"lat": "lateral", "out": "output"}
LAYER_START, PYRAMID_START = "op_", "(?:lat|out)_"
_HEAD_LAST = "cfc_"
CHOSEN_HEAD_START = f"(?:{LAYER_START}|{_HEAD_LAST})"


def write_backbone(proto: architecture_pb2.OperationLayers) -> list[str]:
    return _write("op", proto.layer)


def read_backbone(proto: architecture_pb2.OperationLayers, piece: Piece) -> None:
    _read(proto.layer.add(), piece)


def write_pyramid(proto: architecture_pb2.HitPyramid) -> list[str]:
    return [
        word for name, field in _PYRAMID.items() for word in _write(name, getattr(proto, field))
    ]


def read_pyramid(proto: architecture_pb2.HitPyramid, piece: Piece) -> None:
    field = _PYRAMID.get(piece[0].partition("_")[0])
    if field is None:
        fail(piece, f"{nearest(piece[0], _PYRAMID)} is allowed")
    _read(getattr(proto, field).add(), piece)


def write_head(proto: architecture_pb2.ChosenLayers) -> list[str]:
    return [*_write("op", proto.layer), f"{_HEAD_LAST}c{proto.fc_channels}"]


def read_head(proto: architecture_pb2.ChosenLayers, piece: Piece) -> None:
    text, start = piece
    if text.startswith(_HEAD_LAST):
        last = (text.removeprefix(_HEAD_LAST), start + len(_HEAD_LAST))
        read_options(proto, last, options("c=fc_channels"))
    else:
        _read(proto.layer.add(), piece)


def _write(name: str, layers: Iterable[architecture_pb2.ChosenLayer]) -> list[str]:
    words = []
    for layer in layers:
        ops = "+".join(op.replace("_", "-") for op in layer.op)
        own = write_options(layer, architecture_pb2.ChosenLayer(), _OPTIONS)
        words.append("_".join([name, ops, *own]))
    return words


def _read(layer: architecture_pb2.ChosenLayer, piece: Piece) -> None:
    text, start = piece
    name, _, rest = text.partition("_")
    ops, _, own = rest.partition("_")
    place = start + len(name) + 1
    for op in ops.split("+"):
        try:
            layer.op.append(str(parse(op.replace("-", "_"))))
        except ConfigError as error:
            fail((op, place), str(error))
        place += len(op) + 1
    read_options(layer, (own, place), _OPTIONS)

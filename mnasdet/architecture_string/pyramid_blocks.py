"""The blocks of searched feature pyramids, MnasFPN's and NAS-FPN's, written and read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from mnasdet.architecture_string.grammar import Piece, fail, split
from mnasdet.protos import architecture_pb2

_MnasFpn = architecture_pb2.MnasFpn
_NasFpn = architecture_pb2.NasFpn


def live_blocks(proto: architecture_pb2.MnasFpn) -> list[int]:
    """Returns the places in `proto.block` of the blocks that an output needs, ascending."""
    num_inputs = proto.max_level - proto.min_level + 1
    stack = list(range(len(proto.block)))[-num_inputs:]
    live: set[int] = set()
    while stack:
        place = stack.pop()
        if place not in live:
            live.add(place)
            inputs = proto.block[place].input
            stack += [index - num_inputs for index in inputs if index >= num_inputs]
    return sorted(live)


def feature_names(proto: architecture_pb2.MnasFpn) -> dict[int, str]:
    """Returns the names of features, by the index that a block's `input` has of them.

    C3, C4, … come in, B0, B1, … are the live blocks.
    """
    return _names(proto, live_blocks(proto))


def _names(proto: Any, places: Sequence[int]) -> dict[int, str]:
    num_inputs = proto.max_level - proto.min_level + 1
    names = {index: f"C{proto.min_level + index}" for index in range(num_inputs)}
    # Numbered among the live ones, so that two cells that build one network have one string.
    return names | {num_inputs + place: f"B{i}" for i, place in enumerate(places)}


def write_mnasfpn(proto: architecture_pb2.MnasFpn) -> list[str]:
    """Writes the blocks that an output needs; the others are not built."""
    names = feature_names(proto)
    return [
        f"L{block.level}({'+'.join(names[index] for index in block.input)})"
        f"f{block.expanded_channels}k{block.kernel_size}"
        f"{'se' if block.merge == _MnasFpn.SQUEEZE_EXCITE else ''}"
        for block in (proto.block[place] for place in live_blocks(proto))
    ]


def read_mnasfpn(proto: architecture_pb2.MnasFpn, piece: Piece) -> None:
    match = re.fullmatch(r"L(\d+)\(([^()]*)\)f(\d+)k(\d+)(se)?", piece[0])
    if not match:
        fail(piece, "a block is written like L4(C4+C5)f256k3 or L4(C4+C5)f256k3se")
    proto.block.add(
        level=int(match[1]),
        input=_inputs(proto, len(proto.block), (match[2], piece[1] + match.start(2))),
        expanded_channels=int(match[3]),
        kernel_size=int(match[4]),
        merge=_MnasFpn.SQUEEZE_EXCITE if match[5] else _MnasFpn.ADD,
    )


def write_nas_fpn(proto: architecture_pb2.NasFpn) -> list[str]:
    """Writes all cells: a cell that no other uses goes into an output."""
    names = _names(proto, range(len(proto.cell)))
    return [
        f"L{cell.level}({'+'.join(names[index] for index in cell.input)})"
        f"{'gp' if cell.op == _NasFpn.GLOBAL_POOLING else ''}"
        for cell in proto.cell
    ]


def read_nas_fpn(proto: architecture_pb2.NasFpn, piece: Piece) -> None:
    match = re.fullmatch(r"L(\d+)\(([^()]*)\)(gp)?", piece[0])
    if not match:
        fail(piece, "a cell is written like L4(C4+C6) or L4(C4+C6)gp")
    proto.cell.add(
        level=int(match[1]),
        input=_inputs(proto, len(proto.cell), (match[2], piece[1] + match.start(2))),
        op=_NasFpn.GLOBAL_POOLING if match[3] else _NasFpn.SUM,
    )


def _inputs(proto: Any, num_blocks: int, piece: Piece) -> list[int]:
    """Returns the indices of the features that "C3+B0" names."""
    num_inputs = proto.max_level - proto.min_level + 1
    indices = []
    for name in split(piece, r"\+"):
        match = re.fullmatch(r"([CB])(\d+)", name[0])
        number = int(match[2]) if match else -1
        index = number - proto.min_level
        if match and match[1] == "B":
            index = num_inputs + number if number < num_blocks else -1
        elif index >= num_inputs:
            index = -1
        if index < 0:
            earlier = f" or B0 to B{num_blocks - 1}" if num_blocks else ""
            fail(name, f"C{proto.min_level} to C{proto.max_level}{earlier} is there before it")
        indices.append(index)
    return indices

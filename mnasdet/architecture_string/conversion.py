"""Architectures as one readable line that can be typed, compared and read back:

    mobilenet_v2/mnasfpn_c48_r4_L4(C4+C5)f256k3.L3(C3+B0)f128k3…/shared_d64_n4/net_i320

The parts, separated by "/", are the backbone; then the feature pyramid, the box predictor and,
where they are not the pyramid's usual ones, the anchors; or a classifier in place of those; or a
region proposal (`rpn`) and the heads of regions (`rcnn`) in place of the predictor; and `net` for
what belongs to all parts. A part is its kind and its options, joined by "_": a key and
its numbers, or a key alone. Blocks stand after the options, separated by ".". Those of a pyramid
are their level and in brackets what they merge: C3, C4, … come in, B0, B1, … are the blocks before.
A MnasFPN's have F and the kernel size after that, and "se" for squeeze and excite; a NAS-FPN's
have "gp" for global pooling. A base code stands after `base_code_` as it is. What is inside a head
of regions stands like blocks: fc_n2_c1024.stage_i0.5.stage_i0.6.

What the string leaves out is not structure: name and source; how layers start, are normalised,
regularised and activated. Those are the published ones of each kind.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from typing import Any

from google.protobuf.message import Message

from mnasdet.architecture_string.grammar import Blocks, Kind, Piece, fail, split
from mnasdet.architecture_string.kinds import KINDS, ORDER
from mnasdet.architecture_string.words import (
    kind_of,
    parse,
    read_kind,
    read_options,
    write_options,
)
from mnasdet.architectures import levels
from mnasdet.protos import architecture_pb2


def to_string(architecture: architecture_pb2.Architecture) -> str:
    """Returns the line that `from_string` makes the same structure of."""
    parts = [_write_part(architecture, field) for field in ORDER]
    # Anchors are left out where they are the usual ones: most lines would else be twice as long.
    usual = architecture_pb2.Architecture()
    usual.CopyFrom(architecture)
    _set_usual_anchors(usual)
    place = ORDER.index("anchor_generator")
    if parts[place] == _write_part(usual, "anchor_generator"):
        parts[place] = ""
    return "/".join(filter(None, parts))


def _write_part(architecture: architecture_pb2.Architecture, field: str) -> str:
    message, kinds = _part(architecture, field)
    if message is None:
        return ""
    name = kind_of(message, kinds)
    kind = kinds[name]
    words = write_options(message, _usual(kind, message, architecture), kind.options)
    if kind.blocks:
        words.append(".".join(kind.blocks.write(message)))
    return "_".join([name, *filter(None, words)]) if field or words else ""


def from_string(text: str) -> architecture_pb2.Architecture:
    """Returns the architecture that a line stands for.

    Raises:
      ConfigError: with the place in the line that cannot be read, and what is allowed there.
    """
    architecture = architecture_pb2.Architecture()
    # Parts come in one order, so that a word means one thing: `c48` is the pyramid's wherever it
    # is.
    allowed = {name: kind for name, kind in KINDS.items() if _place(kind) == 0}
    for piece in split((text, 0), "/"):
        name, rest = read_kind(piece, allowed)
        kind = KINDS[name]
        allowed = {name: other for name, other in KINDS.items() if _place(other) > _place(kind)}
        message = reduce(getattr, filter(None, kind.path.split(".")), architecture)
        # A part without options is there all the same.
        message.SetInParent()
        if kind.path:
            message.CopyFrom(_usual(kind, message, architecture))
        options, blocks = _without_blocks(rest, kind)
        read_options(message, options, kind.options)
        if kind.blocks:
            _read_blocks(message, kind.blocks, blocks)
        # The pyramid decides the usual anchors, and proposals may have guided ones in their place.
        if kind.anchors or kind.path == "region_proposal":
            _set_usual_anchors(architecture)
    return architecture


def _read_blocks(message: Any, blocks: Blocks, pieces: Sequence[Piece]) -> None:
    for piece in pieces:
        try:
            blocks.read(message, piece)
        except ValueError:
            fail(piece, "a number in it is too large")


def _without_blocks(piece: Piece, kind: Kind) -> tuple[Piece, list[Piece]]:
    """Splits a part into the options before the blocks, and the blocks."""
    text, start = piece
    match = re.search(f"(?:^|_)(?={kind.blocks.start})", text) if kind.blocks else None
    if not match:
        return piece, []
    # A "." in a number has a digit after it.
    blocks = split((text[match.end() :], start + match.end()), r"\.(?=\D|$)")
    return (text[: match.start()], start), list(blocks)


def _place(kind: Kind) -> int:
    return ORDER.index(kind.path.split(".")[0])


def _part(architecture: architecture_pb2.Architecture, field: str) -> tuple[Any, dict[str, Kind]]:
    """Returns a part's message, if there is one, and the kinds that write it."""
    if not field:
        return architecture, {"net": KINDS["net"]}
    part: Any = getattr(architecture, field)
    path = field
    # A region head has a oneof, too, but that is one of its own parts.
    if (oneof := f"{field}_oneof") in part.DESCRIPTOR.oneofs_by_name:
        member = part.WhichOneof(oneof)
        path = f"{field}.{member}"
        part = getattr(part, member) if member else None
    elif not architecture.HasField(field):
        part = None
    return part, {name: kind for name, kind in KINDS.items() if kind.path == path}


def _usual(kind: Kind, message: Message, architecture: architecture_pb2.Architecture) -> Any:
    """Returns a message of a kind as it is where no option says otherwise.

    Anchors have the pyramid's levels.
    """
    usual: Any = parse(kind.usual, message)
    if kind is KINDS["multiscale"]:
        _set_levels(usual, architecture)
    return usual


def _set_levels(generator: Any, architecture: architecture_pb2.Architecture) -> None:
    """Sets the levels of anchors to those that predict, if the pyramid has levels."""
    predicting = levels(architecture)
    if predicting and not architecture.feature_pyramid.HasField("ssd_layers"):
        generator.min_level, generator.max_level = predicting[0], predicting[-1]


def _set_usual_anchors(architecture: architecture_pb2.Architecture) -> None:
    """Sets the anchors that are usual for the pyramid; none without one, or with guided ones."""
    architecture.ClearField("anchor_generator")
    pyramid, kinds = _part(architecture, "feature_pyramid")
    if pyramid is None or architecture.region_proposal.HasField("guided_anchoring"):
        return
    anchors = parse(kinds[kind_of(pyramid, kinds)].anchors, architecture.anchor_generator)
    if anchors.HasField("multiscale_anchor_generator"):
        _set_levels(anchors.multiscale_anchor_generator, architecture)
    else:
        anchors.ssd_anchor_generator.num_layers = len(pyramid.channels) + 2
    architecture.anchor_generator.CopyFrom(anchors)

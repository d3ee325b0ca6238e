"""The parts of a two-stage detector that have messages inside, written and read."""

from __future__ import annotations

import re

from mnasdet.architecture_string import chosen_layers
from mnasdet.architecture_string.grammar import Kind, Piece, options
from mnasdet.architecture_string.words import parse, read_kind, read_options, write_options
from mnasdet.protos import architecture_pb2

# Messages inside a part, each by the name that its word begins with.
_PROPOSAL_PARTS = {
    "ga": Kind(
        "guided_anchoring",
        options("g=deformable_groups k=deformable_kernel_size s=anchor_scale t=location_threshold"),
    )
}
_HEAD_PARTS = {
    "align": Kind(
        "region_align",
        options(
            "b=size r=sampling_ratio p=max_pool_size ps=max_pool_stride f=finest_scale",
            corners=("from_corner_to_corner", True),
        ),
    ),
    "fc": Kind("fully_connected", options("n=num_layers! c=channels!")),
    "last": Kind("last_backbone_stage", options("s=stride")),
    "stage": Kind("stage", options("i=iou_threshold! s=box_scales w=loss_weight")),
}
PROPOSAL_START, HEAD_START = (
    "ga(?:_|$)",
    (rf"(?:(?:align|fc|last|stage)(?:_|\.|$)|{chosen_layers.CHOSEN_HEAD_START})"),
)


def write_region_proposal(proto: architecture_pb2.RegionProposal) -> list[str]:
    return _write(proto, _PROPOSAL_PARTS)


def read_region_proposal(proto: architecture_pb2.RegionProposal, piece: Piece) -> None:
    _read(proto, piece, _PROPOSAL_PARTS)


def write_region_head(proto: architecture_pb2.RegionHead) -> list[str]:
    words = _write(proto, _HEAD_PARTS)
    if proto.HasField("chosen_layers"):
        words += chosen_layers.write_head(proto.chosen_layers)
    return words


def read_region_head(proto: architecture_pb2.RegionHead, piece: Piece) -> None:
    if re.match(chosen_layers.CHOSEN_HEAD_START, piece[0]):
        chosen_layers.read_head(proto.chosen_layers, piece)
    else:
        _read(proto, piece, _HEAD_PARTS)


def _write(
    proto: architecture_pb2.RegionProposal | architecture_pb2.RegionHead, kinds: dict[str, Kind]
) -> list[str]:
    """Writes a word for each message that is there."""
    words = []
    for name, kind in kinds.items():
        value = getattr(proto, kind.path)
        # A part that is not there says what a default one says, but for oneofs and guided anchors.
        messages = value if hasattr(value, "append") else [value] * proto.HasField(kind.path)
        for message in messages:
            written = write_options(message, parse("", message), kind.options)
            words.append("_".join([name, *written]))
    return words


def _read(
    proto: architecture_pb2.RegionProposal | architecture_pb2.RegionHead,
    piece: Piece,
    kinds: dict[str, Kind],
) -> None:
    name, rest = read_kind(piece, kinds)
    value = getattr(proto, kinds[name].path)
    if hasattr(value, "append"):
        message = value.add()
    else:
        message = value
        message.SetInParent()
    read_options(message, rest, kinds[name].options)

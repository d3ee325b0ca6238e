"""A two-stage detector as boxes and arrows: levels, proposals, regions, and stages that judge."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from markupsafe import Markup

from mnasdet.architectures import COARSEST, levels, region_side, region_stages
from mnasdet.protos import architecture_pb2
from mnasdet.reporting import layered_graph
from mnasdet.reporting.layered_graph import Box, Edge


def svg(
    architecture: architecture_pb2.Architecture,
    image_size: Sequence[int] | None = None,
    name: str = "two-stages",
) -> Markup:
    """Returns the detector as an SVG element, which stands alone or in a page, light or dark;
    nothing if it has one stage.

    Args:
      image_size: (height, width) in pixels; without it levels are shown by their strides.
      name: unique in the page.
    """
    if not architecture.HasField("region_head"):
        return Markup()
    boxes, edges = _graph(architecture, image_size)
    return layered_graph.svg(boxes, edges, name=name, title="The detector")


def caption(architecture: architecture_pb2.Architecture) -> str:
    """Describes the drawing in words."""
    if not architecture.HasField("region_head"):
        return ""
    told = (
        "Dashed: the levels that regions are cropped from; a region comes from the level of its "
        "size."
    )
    if len(region_stages(architecture)) > 1:
        told += " Every stage crops the boxes of the stage before anew, and refines them."
    return told


def _graph(
    architecture: architecture_pb2.Architecture, image_size: Sequence[int] | None
) -> tuple[list[Box], list[Edge]]:
    proposing = list(levels(architecture))
    middle = proposing[len(proposing) // 2]
    features, edges, row = {}, [], 0
    if architecture.HasField("feature_pyramid"):
        taken = {level: _level("C", level, 0, image_size) for level in _taken(architecture)}
        row = 1
    features = {level: _level("P" if row else "C", level, row, image_size) for level in proposing}
    if row:
        for level, box in features.items():
            edges.append(Edge(taken.get(level, taken[max(taken)]), box))
    first = Box("block", *_proposals(architecture), middle, row + 1)
    edges += [Edge(box, first) for box in features.values()]
    align = architecture.region_head.region_align
    side = region_side(align)
    crop = Box("block", f"RoIAlign {side}×{side}", _regions(architecture), middle, row + 2)
    edges.append(Edge(first, crop))
    cropped = [level for level in proposing if level <= COARSEST] or proposing[:1]
    edges += [Edge(features[level], crop, dashed=True) for level in cropped]
    chain = [crop]
    for number, stage in enumerate(region_stages(architecture), start=1):
        title = f"Stage {number} · IoU {stage.iou_threshold:.2g}"
        chain.append(Box("gated", title, _layers(architecture), middle, chain[-1].row + 1))
    chain.append(Box("end", "Detections", "classes and boxes", middle, chain[-1].row + 1))
    edges += [Edge(one, other) for one, other in itertools.pairwise(chain)]
    own = [*(taken.values() if row else ()), *features.values()]
    return [*own, first, *chain], edges


def _taken(architecture: architecture_pb2.Architecture) -> list[int]:
    """Returns the backbone's levels that the pyramid takes."""
    proposing = levels(architecture)
    stated = architecture.feature_pyramid.fpn.input_level
    return list(stated) or list(range(min(proposing), min(COARSEST, max(proposing)) + 1))


def _level(letter: str, level: int, row: int, image_size: Sequence[int] | None) -> Box:
    # Rounded up, as SAME padding does.
    size = "×".join(str(-(-side // 2**level)) for side in image_size or ())
    return Box("end", f"{letter}{level}", size or f"1/{2**level}", level, row)


def _proposals(architecture: architecture_pb2.Architecture) -> tuple[str, str]:
    proposal = architecture.region_proposal
    if proposal.HasField("guided_anchoring"):
        return "Guided anchors", f"RPN, {proposal.channels} channels"
    return "Region proposals", f"RPN, {proposal.channels} channels"


def _regions(architecture: architecture_pb2.Architecture) -> str:
    return f"{architecture.region_proposal.max_proposals:,} regions"


def _layers(architecture: architecture_pb2.Architecture) -> str:
    head = architecture.region_head
    if head.HasField("last_backbone_stage"):
        return "last stage of backbone"
    layers = head.fully_connected
    return f"{layers.num_layers} FC, {layers.channels} channels"

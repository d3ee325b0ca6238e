"""The cell of a MnasFPN as in figure 2 of Chen et al., 2019, and of a NAS-FPN as in figure 6 of
Ghiasi et al., 2019."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from mnasdet.architecture_string.pyramid_blocks import feature_names, live_blocks
from mnasdet.networks.blocks import round_channels
from mnasdet.protos import architecture_pb2
from mnasdet.reporting import layered_graph
from mnasdet.reporting.layered_graph import Box, Edge


@dataclass(frozen=True)
class _Merge:
    """A block of a MnasFPN, or a merging cell of a NAS-FPN.

    Attributes:
      index: of the feature that it makes.
      name: B0, B1, … as in the architecture string.
      left_over: features that it takes in because nothing else does.
      gated: whether one input gates the other.
    """

    index: int
    name: str
    title: str
    level: int
    inputs: tuple[int, ...]
    left_over: tuple[int, ...] = ()
    gated: bool = False


def svg(
    architecture: architecture_pb2.Architecture,
    image_size: Sequence[int] | None = None,
    name: str = "cell",
) -> Markup:
    """Returns the cell as an SVG element, which stands alone or in a page, light or dark; nothing
    if it has none.

    What comes in is on top, what goes out at the bottom, one column or more a level. A merge is in
    the row behind its last input. Blocks that no output needs are left out.

    Args:
      image_size: (height, width) in pixels; without it levels are shown by their strides.
      name: unique in the page.
    """
    pyramid = _pyramid(architecture)
    if pyramid is None:
        return Markup()
    boxes, edges = _graph(architecture, pyramid, image_size)
    return layered_graph.svg(boxes, edges, name=name, title="The cell of the feature pyramid")


def caption(architecture: architecture_pb2.Architecture) -> str:
    """Describes the drawing in words."""
    pyramid = _pyramid(architecture)
    if pyramid is None:
        return ""
    applied = f"Applied {pyramid.repeats} time{'s' * (pyramid.repeats != 1)}. "
    if isinstance(pyramid, architecture_pb2.NasFpn):
        return applied + (
            "GP, amber: the coarser input gates the finer by its global maximum; dashed: what "
            "nothing else uses goes into the output of its level."
        )
    return applied + (
        "F: channels of the merged feature, k: kernel size; SE, amber: squeeze-and-excite; "
        "dashed: the cell's residuals. Blocks that no output needs are left out."
    )


def _pyramid(architecture: architecture_pb2.Architecture) -> Any:
    """Returns the pyramid if it has a cell."""
    pyramid = architecture.feature_pyramid
    if pyramid.mnasfpn.block:
        return pyramid.mnasfpn
    return pyramid.nas_fpn if pyramid.nas_fpn.cell else None


def _graph(
    architecture: architecture_pb2.Architecture, pyramid: Any, image_size: Sequence[int] | None
) -> tuple[list[Box], list[Edge]]:
    levels = range(pyramid.min_level, pyramid.max_level + 1)
    channels = _width(architecture, pyramid.channels)

    def end(letter: str, level: int, row: int) -> Box:
        shape = f"{_size(level, image_size)}×{channels}" if image_size else _size(level, None)
        return Box("end", f"{letter}{level}", shape, level, row)

    features = {index: end("C", level, 0) for index, level in enumerate(levels)}
    edges = []
    outputs = {}
    merges = _merges(architecture, pyramid)
    for place, merge in enumerate(merges):
        box = Box(
            "gated" if merge.gated else "block",
            merge.title,
            f"{merge.name} · L{merge.level} · {_size(merge.level, image_size)}",
            merge.level,
            row=1 + max(features[i].row for i in merge.inputs + merge.left_over),
        )
        edges += [Edge(features[i], box) for i in merge.inputs]
        edges += [Edge(features[i], box, dashed=True) for i in merge.left_over]
        features[merge.index] = box
        if place >= len(merges) - len(levels):
            outputs[merge.level] = box
    last_row = 1 + max(box.row for box in features.values())
    ends = {level: end("P", level, last_row) for level in levels}
    edges += [Edge(box, ends[level]) for level, box in outputs.items()]
    if getattr(pyramid, "cell_residual", False):
        edges += [Edge(features[i], ends[level], True) for i, level in enumerate(levels)]
    return [*features.values(), *ends.values()], edges


def _merges(architecture: architecture_pb2.Architecture, pyramid: Any) -> list[_Merge]:
    """Returns the merges in their order; the outputs, one a level, are the last."""
    if isinstance(pyramid, architecture_pb2.NasFpn):
        return _merging_cells(pyramid)
    num_inputs = pyramid.max_level - pyramid.min_level + 1
    names = feature_names(pyramid)
    merges = []
    for place in live_blocks(pyramid):
        block = pyramid.block[place]
        gated = block.merge == architecture_pb2.MnasFpn.SQUEEZE_EXCITE
        title = (
            f"F={_width(architecture, block.expanded_channels)} · {'SE' if gated else 'add'} · "
            f"k={block.kernel_size}"
        )
        index = num_inputs + place
        inputs = tuple(block.input)
        merges.append(_Merge(index, names[index], title, block.level, inputs, gated=gated))
    return merges


def _merging_cells(pyramid: architecture_pb2.NasFpn) -> list[_Merge]:
    levels = list(range(pyramid.min_level, pyramid.max_level + 1))
    num_inputs = len(levels)
    unused = set(range(num_inputs))
    merges = []
    for place, cell in enumerate(pyramid.cell):
        index = num_inputs + place
        unused -= set(cell.input)
        left_over: list[int] = []
        if place >= len(pyramid.cell) - num_inputs:
            # Ghiasi et al., 2019, section 3.1: what no cell uses is summed into the output of its
            # level.
            left_over = [i for i in sorted(unused) if levels[i] == cell.level]
            unused -= set(left_over)
        gated = cell.op == architecture_pb2.NasFpn.GLOBAL_POOLING
        title = "GP" if gated else "sum"
        inputs = tuple(cell.input)
        merges.append(
            _Merge(index, f"B{place}", title, cell.level, inputs, tuple(left_over), gated)
        )
        levels.append(cell.level)
        unused.add(index)
    return merges


def _width(architecture: architecture_pb2.Architecture, channels: int) -> int:
    # Without a multiplier the widths are not rounded either.
    if architecture.depth_multiplier == 1.0:
        return channels
    return round_channels(channels * architecture.depth_multiplier, architecture.min_depth)


def _size(level: int, image_size: Sequence[int] | None) -> str:
    if image_size is None:
        return f"1/{2**level}"
    # Rounded up, as SAME padding does.
    return "×".join(str(-(-side // 2**level)) for side in image_size)

"""An architecture as drawings: its backbone, its cell and its two stages, where they are of a kind
that is searched."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from mnasdet.architectures import input_size
from mnasdet.protos import architecture_pb2
from mnasdet.reporting import backbone_graph, cell_graph, page, two_stage_graph


def sections(
    architecture: architecture_pb2.Architecture, image_size: Sequence[int] | None
) -> list[Markup]:
    """Returns the sections of the best architecture, one a drawing.

    Args:
      image_size: (height, width) in pixels.
    """
    size = _image_size(architecture, image_size)
    backbone = backbone_graph.svg(architecture, size)
    cell = cell_graph.svg(architecture, size, "best-cell")
    stages = two_stage_graph.svg(architecture, size, "best-stages")
    return [
        _section("The best backbone", backbone_graph.caption(architecture), backbone),
        _section("The best cell", cell_graph.caption(architecture), cell),
        _section("The best detector", two_stage_graph.caption(architecture), stages),
    ]


def small(
    architecture: architecture_pb2.Architecture, image_size: Sequence[int] | None, name: str
) -> Markup:
    """Returns all drawings, collapsed; nothing without any.

    Args:
      name: unique in the page.
    """
    size = _image_size(architecture, image_size)
    drawings = [
        backbone_graph.svg(architecture, size),
        cell_graph.svg(architecture, size, name),
        two_stage_graph.svg(architecture, size, f"{name}-stages"),
    ]
    content = Markup().join(map(_wide, filter(None, drawings)))
    if not content:
        return Markup()
    return Markup("<details><summary>graph</summary>{}</details>").format(content)


def _section(title: str, caption: str, drawing: Markup) -> Markup:
    return page.section(title, page.note(caption) + _wide(drawing)) if drawing else Markup()


def _wide(drawing: Markup) -> Markup:
    return Markup('<div class="wide">{}</div>').format(drawing)


def _image_size(
    architecture: architecture_pb2.Architecture, image_size: Sequence[int] | None
) -> Sequence[int] | None:
    """Returns the architecture's own size where it decides that."""
    return input_size(architecture) or image_size

"""Draws boxes in rows and the arrows between them as SVG, without any crossing of boxes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

# Pixels.
_BOX_WIDTH, _BOX_HEIGHT = 146, 46
_COLUMN_GAP, _ROW_GAP = 50, 52
_LANE_STEP, _LANE_GAP = 6, 11
_PORT_GAP = 16
_MARGIN = 10

# Its own colours, so that the drawing is also one on its own.
_STYLE = Markup("""
.cell { --ink: #1f2733; --soft: #667085; --box: #fff; --edge: #98a2b3; --end: #eef3fb;
  --gated: #fdf3e3; --gate: #d98a1f;
  font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; text-anchor: middle; }
@media (prefers-color-scheme: dark) {
  .cell { --ink: #e6e9ef; --soft: #98a2b3; --box: #1d2330; --edge: #667085; --end: #22304a;
    --gated: #35291a; --gate: #c98a3a; } }
.cell rect { fill: var(--box); stroke: var(--edge); stroke-width: 1.25; }
.cell .end rect { fill: var(--end); stroke: #3b82f6; }
.cell .gated rect { fill: var(--gated); stroke: var(--gate); }
.cell text { fill: var(--ink); font-weight: 600; }
.cell text.soft { fill: var(--soft); font-weight: 400; font-size: 12px; }
.cell path { fill: none; stroke: var(--edge); stroke-width: 1.5; }
.cell path.dashed { stroke: #3b82f6; stroke-dasharray: 5 4; opacity: .75; }
.cell marker path { fill: var(--edge); stroke: none; }
.cell marker.dashed path { fill: #3b82f6; }
""")


@dataclass
class Box:
    """`kind` is "end" for what comes in and goes out, else "block" or "gated"; `x` is the centre.

    A level is a column, or several where one row has several boxes of it.
    """

    kind: str
    title: str
    subtitle: str
    level: int
    row: int
    x: float = 0.0

    @property
    def top(self) -> int:
        return _MARGIN + self.row * (_BOX_HEIGHT + _ROW_GAP)

    @property
    def bottom(self) -> int:
        return self.top + _BOX_HEIGHT


@dataclass(eq=False)
class Edge:
    """An arrow down. Where it passes rows of other boxes it runs straight down at `lane`."""

    source: Box
    target: Box
    dashed: bool = False
    lane: float | None = None

    @property
    def rows(self) -> range:
        """Returns the rows that the edge passes."""
        return range(self.source.row + 1, self.target.row)


def svg(boxes: Sequence[Box], edges: Sequence[Edge], *, name: str, title: str) -> Markup:
    """Returns an SVG element that stands alone or in a page, light or dark.

    Args:
      boxes: every edge goes to a later row than it comes from.
      name: unique in the page; ids start with it.
      title: for those who cannot see it.
    """
    _place(boxes)
    _choose_lanes(boxes, edges)
    paths = _paths(edges, name)
    xs = [box.x + side * _BOX_WIDTH / 2 for box in boxes for side in (-1, 1)]
    xs += [edge.lane for edge in edges if edge.lane is not None]
    left, right = min(xs) - _MARGIN, max(xs) + _MARGIN
    width, height = right - left, max(box.bottom for box in boxes) + _MARGIN
    # A page may shrink it as long as it can be read.
    style = f"max-width:100%;min-width:{0.75 * width:g}px"
    return Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="cell" role="img" width="{width:g}" '
        'height="{height:g}" viewBox="{left:g} 0 {width:g} {height:g}" style="{style}">'
        "<title>{title}</title><style>{css}</style><defs>{markers}</defs>{paths}{boxes}</svg>"
    ).format(
        width=width,
        height=height,
        left=left,
        style=style,
        title=title,
        css=_STYLE,
        markers=_marker(f"{name}-arrow", "") + _marker(f"{name}-dashed", "dashed"),
        paths=Markup().join(paths),
        boxes=Markup().join(map(_drawn, boxes)),
    )


def _place(boxes: Iterable[Box]) -> None:
    """Sets `x`: a level is as many columns wide as it has boxes in one row."""
    cells: dict[tuple[int, int], list[Box]] = {}
    for box in boxes:
        cells.setdefault((box.level, box.row), []).append(box)
    left = 0
    for level in sorted({level for level, _ in cells}):
        rows = [cell for (other, _), cell in cells.items() if other == level]
        columns = max(map(len, rows))
        for row in rows:
            for place, box in enumerate(row):
                column = left + (columns - len(row)) / 2 + place
                box.x = (column + 0.5) * (_BOX_WIDTH + _COLUMN_GAP)
        left += columns


def _choose_lanes(boxes: Sequence[Box], edges: Sequence[Edge]) -> None:
    """Sets `lane` where an edge passes rows: free of boxes and other lanes, with few detours."""
    margin = _BOX_WIDTH / 2 + _LANE_GAP
    blocked: dict[int, list[tuple[float, float]]] = {}
    for box in boxes:
        blocked.setdefault(box.row, []).append((box.x, margin))
    rightmost = int(max(box.x for box in boxes)) + _BOX_WIDTH
    # Short edges first: they have the least choice of where to go.
    for edge in sorted(edges, key=lambda edge: (edge.dashed, len(edge.rows))):
        if not edge.rows:
            continue
        ends = (edge.source.x, edge.target.x)
        # Beyond the outer boxes nothing but other lanes is ever in the way.
        spare = _LANE_GAP * len(edges) + _LANE_STEP
        candidates = [*ends, *range(-spare, rightmost + spare, _LANE_STEP)]
        free = [
            x
            for x in candidates
            if all(abs(x - at) >= gap for row in edge.rows for at, gap in blocked[row])
        ]
        edge.lane = min(free, key=lambda x: abs(x - ends[0]) + abs(x - ends[1]))
        for row in edge.rows:
            blocked[row].append((edge.lane, _LANE_GAP))


def _paths(edges: Sequence[Edge], name: str) -> list[Markup]:
    """Returns the arrows; at one box they lie side by side in the order of their lanes."""
    starts = _ports([(edge.source, _first_turn(edge), edge) for edge in edges])
    stops = _ports([(edge.target, _last_turn(edge), edge) for edge in edges])
    return [_path(edge, starts[edge], stops[edge], name) for edge in edges]


def _first_turn(edge: Edge) -> float:
    return edge.target.x if edge.lane is None else edge.lane


def _last_turn(edge: Edge) -> float:
    return edge.source.x if edge.lane is None else edge.lane


def _ports(ends: Sequence[tuple[Box, float, Edge]]) -> dict[Edge, float]:
    """Returns where along its box every edge is attached."""
    by_box: dict[int, list[tuple[Box, float, Edge]]] = {}
    for end in ends:
        by_box.setdefault(id(end[0]), []).append(end)
    ports = {}
    for group in by_box.values():
        gap = min(_PORT_GAP, (_BOX_WIDTH - _PORT_GAP) / len(group))
        for place, (box, _, edge) in enumerate(sorted(group, key=lambda end: end[1])):
            ports[edge] = box.x + (place - (len(group) - 1) / 2) * gap
    return ports


def _path(edge: Edge, start: float, stop: float, name: str) -> Markup:
    y, end = edge.source.bottom, edge.target.top
    steps = [f"M{start:g} {y}"]
    x = start
    if edge.lane is not None:
        steps.append(_curve(x, y, edge.lane, y + _ROW_GAP))
        y = end - _ROW_GAP
        x = edge.lane
        steps.append(f"V{y}")
    steps.append(_curve(x, y, stop, end))
    kind = Markup(' class="dashed"') if edge.dashed else ""
    marker = "dashed" if edge.dashed else "arrow"
    return Markup('<path{} d="{}" marker-end="url(#{}-{})"/>').format(
        kind, " ".join(steps), name, marker
    )


def _curve(x: float, y: float, to_x: float, to_y: float) -> str:
    """Draws a curve that leaves and arrives vertically."""
    middle = (y + to_y) / 2
    return f"C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {to_y:g}"


def _marker(name: str, kind: str) -> Markup:
    return Markup(
        '<marker id="{}" class="{}" viewBox="0 0 8 8" refX="7.5" refY="4" '
        'markerWidth="8" markerHeight="8" markerUnits="userSpaceOnUse" orient="auto">'
        '<path d="M0 .5 8 4 0 7.5Z"/></marker>'
    ).format(name, kind)


def _drawn(box: Box) -> Markup:
    radius = _BOX_HEIGHT / 2 if box.kind == "end" else 4
    rect = Markup('<rect x="{:g}" y="{}" width="{}" height="{}" rx="{:g}"/>').format(
        box.x - _BOX_WIDTH / 2, box.top, _BOX_WIDTH, _BOX_HEIGHT, radius
    )
    title = Markup('<text x="{:g}" y="{}">{}</text>').format(box.x, box.top + 20, box.title)
    subtitle = Markup('<text class="soft" x="{:g}" y="{}">{}</text>').format(
        box.x, box.top + 36, box.subtitle
    )
    return Markup('<g class="{}">{}{}{}</g>').format(box.kind, rect, title, subtitle)

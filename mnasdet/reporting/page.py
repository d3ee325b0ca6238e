"""What the pages of a report are put together of: one file that needs no network."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from decimal import Decimal
from html import escape
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

# The browser itself sees to it that nothing is loaded. WebGL charts compile their functions.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
    "script-src 'unsafe-inline' 'unsafe-eval'"
)


# Ticks of an axis that have room.
_MOST_TICKS = 12


def html(title: str, body: str) -> str:
    """The page, which draws its charts itself."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_asset('report.css')}</style></head>"
        f"<body>{body}<script>{get_plotlyjs()}</script>"
        f"<script>{_asset('report.js')}</script></body></html>\n"
    )


def _asset(name: str) -> str:
    return importlib.resources.files("mnasdet.reporting").joinpath(name).read_text("utf-8")


def section(title: str, content: str, *, kind: str = "") -> str:
    """Nothing where there is nothing to show."""
    if not content:
        return ""
    attribute = f' class="{kind}"' if kind else ""
    return f"<section{attribute}><h2>{escape(title)}</h2>{content}</section>"


def note(text: str) -> str:
    return f'<p class="soft small">{escape(text)}</p>'


def figure(x: str, y: str, legend: bool = False) -> go.Figure:
    """An empty chart with the titles of its axes. The page brings the rest of the theme."""
    axis = {"zeroline": False, "automargin": True}
    return go.Figure(
        layout={
            "template": "none",
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "xaxis": axis | {"title": {"text": x, "standoff": 10}},
            "yaxis": axis | {"title": {"text": y, "standoff": 10}},
            "showlegend": legend,
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            "hovermode": "closest",
            "hoverlabel": {"align": "left"},
        }
    )


def count_trials(figure: go.Figure, first: int, last: int, room: float = 0.0) -> go.Figure:
    """Gives a chart an axis of whole trials.

    Args:
      first, last: that it shows, with `room` trials before and after them.
    """
    if room:
        figure.update_xaxes(range=[first - room, last + room])
    # Of more trials, plotly chooses whole numbers itself.
    return figure.update_xaxes(dtick=1) if last - first <= _MOST_TICKS else figure


def chart(title: str, figure: go.Figure, kind: str = "chart", height: int | None = None) -> str:
    """A place for the chart, drawn when it is first seen.

    Args:
      kind: CSS classes, one of them "chart".
      height: in pixels, in place of the class's.
    """
    # "<" would let text of the data end the script element.
    data = figure.to_json().replace("<", "\\u003c")
    style = f' style="height:{height}px"' if height else ""
    return (
        f'<div class="{kind}"{style} role="img" aria-label="{escape(title)}"></div>'
        f'<script type="application/json">{data}</script>'
    )


def latency(value: float) -> str:
    """Returns milliseconds, or billions of multiply-adds, with as many digits as tell trials
    apart: tables of layers are right to about 1 %, and trials differ by less."""
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def tiles(values: Mapping[str, str]) -> str:
    """Large figures, in HTML, under their names."""
    if not values:
        return ""
    shown = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in values.items())
    return f'<dl class="tiles">{shown}</dl>'


def details(values: Mapping[str, Any] | None) -> str:
    """Names and values as they are; groups under headings of their own."""
    if not values:
        return ""
    groups = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    plain = {name: value for name, value in values.items() if name not in groups}
    parts = [_list(plain)] if plain else []
    parts += [f"<div><h3>{escape(name)}</h3>{_list(group)}</div>" for name, group in groups.items()]
    return f'<div class="details">{"".join(parts)}</div>'


def _list(values: Mapping[str, Any]) -> str:
    items = "".join(
        f"<dt>{escape(str(name))}</dt><dd>{escape(_shown(value))}</dd>"
        for name, value in values.items()
    )
    return f"<dl>{items}</dl>"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and abs(value) >= 10**15:
        return f"{Decimal(value):.3g}"
    return str(value)

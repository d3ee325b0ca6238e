"""The parts that pages of a report are put together of: one file that needs no network.

Names, notes and errors come from files of others and would run as scripts if they were taken for
HTML. So HTML is `Markup`, and `Markup.format` and `join` escape all that is not.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import plotly.graph_objects as go
import plotly.io
from markupsafe import Markup, escape
from plotly.offline import get_plotlyjs

# The browser itself sees to it that nothing is loaded. WebGL charts compile their functions.
_POLICY = Markup(
    "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; "
    "script-src 'unsafe-inline' 'unsafe-eval'"
)


# Ticks of an axis that have room.
_MOST_TICKS = 12


def html(title: str, body: Markup) -> Markup:
    """Returns the page, which draws its charts itself."""
    return Markup(
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<title>{title}</title><style>{style}</style></head>"
        "<body>{body}<script>{plotly}</script>"
        "<script>{script}</script></body></html>\n"
    ).format(
        policy=_POLICY,
        title=title,
        style=_asset("report.css"),
        body=body,
        plotly=Markup(get_plotlyjs()),
        script=_asset("report.js"),
    )


def _asset(name: str) -> Markup:
    return Markup(importlib.resources.files("mnasdet.reporting").joinpath(name).read_text("utf-8"))


def section(title: str, content: Markup) -> Markup:
    """Returns a part of the page under its title; nothing where there is nothing to show."""
    # A title over nothing would look like a fault of the report.
    if not content:
        return Markup()
    return Markup("<section><h2>{}</h2>{}</section>").format(title, content)


def note(text: str) -> Markup:
    """Returns a paragraph that explains something."""
    return Markup('<p class="soft small">{}</p>').format(text)


def figure(x: str, y: str, legend: bool = False) -> go.Figure:
    """Returns an empty chart with the titles of its axes. The page brings the rest of the theme."""
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
    # Plotly itself chooses whole numbers for more trials.
    return figure.update_xaxes(dtick=1) if last - first <= _MOST_TICKS else figure


def chart(title: str, figure: go.Figure, kind: str = "chart", height: int | None = None) -> Markup:
    """Returns a place for the chart, drawn when it is first seen.

    Args:
      figure: its texts are shown as they are, lines and all; only Markup may have tags.
      kind: CSS classes, one of them "chart".
      height: in pixels, in place of the class's.
    """
    style = Markup(' style="height:{}px"').format(height) if height else ""
    return Markup(
        '<div class="{}"{} role="img" aria-label="{}"></div>'
        '<script type="application/json">{}</script>'
    ).format(kind, style, title, _json(figure))


def _json(figure: go.Figure) -> Markup:
    """Returns a figure as JSON that is safe within a script element and for plotly.

    Plotly takes texts for HTML, of which it knows links and styles.
    """
    data = plotly.io.to_json(_escaped(figure.to_dict()), validate=False)
    # "<" would let text of the data end the script element.
    return Markup(data.replace("<", "\\u003c"))


def _escaped(value: Any) -> Any:
    """Returns a value of a figure with its texts as HTML."""
    if isinstance(value, str):
        return str(escape(value).replace("\n", Markup("<br>")))
    if isinstance(value, np.ndarray):
        return _escaped(value.tolist()) if value.dtype.kind in "OUS" else value
    if isinstance(value, (list, tuple)):
        # Without a call for every number, of which a chart may have 50,000.
        return [item if isinstance(item, (int, float)) else _escaped(item) for item in value]
    if isinstance(value, dict):
        return {name: _escaped(item) for name, item in value.items()}
    return value


def latency(value: float) -> str:
    """Returns milliseconds, or billions of multiply-adds, with as many digits as tell trials
    apart: tables of layers are right to about 1 %, and trials differ by less."""
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"


def tiles(values: Mapping[str, str]) -> Markup:
    """Returns large figures under their names."""
    if not values:
        return Markup()
    shown = Markup().join(
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(*pair) for pair in values.items()
    )
    return Markup('<dl class="tiles">{}</dl>').format(shown)


def details(values: Mapping[str, Any] | None) -> Markup:
    """Returns names and values as they are; groups under headings of their own."""
    if not values:
        return Markup()
    groups = {name: value for name, value in values.items() if isinstance(value, Mapping)}
    plain = {name: value for name, value in values.items() if name not in groups}
    parts = [_list(plain)] if plain else []
    parts += [
        Markup("<div><h3>{}</h3>{}</div>").format(name, _list(group))
        for name, group in groups.items()
    ]
    return Markup('<div class="details">{}</div>').format(Markup().join(parts))


def _list(values: Mapping[str, Any]) -> Markup:
    items = Markup().join(
        Markup("<dt>{}</dt><dd>{}</dd>").format(name, _shown(value))
        for name, value in values.items()
    )
    return Markup("<dl>{}</dl>").format(items)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    # Cardinalities of search spaces have dozens of digits, and may exceed a float.
    if isinstance(value, int) and abs(value) >= 10**15:
        return f"{Decimal(value):.3g}"
    return str(value)

"""Where the latency of one network comes from, as a page of its own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import plotly.graph_objects as go
from markupsafe import Markup

from mnasdet.reporting import page
from mnasdet.tflite.latency.latency_breakdown import LayerLatency, by_part

_COLOURS = ("#3b82f6", "#2bb3a3", "#e08a1e", "#8b95a5")


def html(title: str, layers: Sequence[LayerLatency], constant_ms: float) -> Markup:
    """Returns a page with one bar a part, stacked out of its layers in their order, and every layer
    by itself.

    Args:
      constant_ms: what the whole network takes beside its layers.
    """
    parts = by_part(layers)
    total_ms = sum(parts.values()) + constant_ms
    tiles = page.tiles(
        {"latency": _ms(total_ms)}
        | {part.replace("_", " "): _ms(value) for part, value in parts.items()}
        | {"beside the layers": _ms(constant_ms)}
    )
    height = 130 + 60 * len(parts)
    stacked = page.chart("Latency by part", _stacked(layers), "chart", height)
    running = page.chart("Latency of every layer", _running(layers), "chart large")
    return page.html(
        title,
        Markup("<header><h1>{}</h1></header>").format(title)
        + tiles
        + page.section("By part", page.note("A piece is a layer.") + stacked)
        + page.section("Layer by layer", running),
    )


def _stacked(layers: Sequence[LayerLatency]) -> go.Figure:
    figure = page.figure("latency (ms)", "")
    parts = list(by_part(layers))
    # Where the next layer of each part begins: layers of a part need not be neighbours.
    starts = dict.fromkeys(parts, 0.0)
    bases = []
    for layer in layers:
        bases.append(starts[layer.part])
        starts[layer.part] += layer.latency_ms
    figure.add_trace(
        go.Bar(
            y=[layer.part.replace("_", " ") for layer in layers],
            x=[layer.latency_ms for layer in layers],
            base=bases,
            orientation="h",
            marker={
                "color": [_COLOURS[parts.index(layer.part) % len(_COLOURS)] for layer in layers],
                "line": {"color": "rgba(255,255,255,0.6)", "width": 0.5},
            },
            customdata=[[layer.name, layer.layer] for layer in layers],
            hovertemplate=_HOVER.replace("%{y", "%{x"),
        )
    )
    # The bars have bases of their own; "stack" would add these up once more.
    figure.update_layout(barmode="overlay")
    return figure.update_yaxes(autorange="reversed")


def _running(layers: Sequence[LayerLatency]) -> go.Figure:
    """Bars for the layers, and what they come to so far."""
    figure = page.figure("layer", "latency (ms)", legend=True)
    for number, part in enumerate(by_part(layers)):
        of_part = [(i, layer) for i, layer in enumerate(layers) if layer.part == part]
        figure.add_trace(
            go.Bar(
                name=part.replace("_", " "),
                x=[i for i, _ in of_part],
                y=[layer.latency_ms for _, layer in of_part],
                marker={"color": _COLOURS[number % len(_COLOURS)]},
                customdata=[[layer.name, layer.layer] for _, layer in of_part],
                hovertemplate=_HOVER,
            )
        )
    figure.add_trace(
        go.Scatter(
            name="so far",
            y=list(accumulate(layer.latency_ms for layer in layers)),
            mode="lines",
            yaxis="y2",
            line={"color": _COLOURS[-1], "width": 1.5},
            hovertemplate=Markup("so far %{y:.4~g} ms<extra></extra>"),
        )
    )
    figure.update_layout(
        yaxis2={
            "title": {"text": "so far (ms)"}, "overlaying": "y", "side": "right",
            "rangemode": "tozero", "showgrid": False, "automargin": True,
        }
    )  # fmt: skip
    return figure


_HOVER = Markup("<b>%{customdata[0]}</b><br>%{customdata[1]}<br>%{y:.4~g} ms<extra></extra>")


def _ms(value: float) -> Markup:
    return Markup("{:.4g} <small>ms</small>").format(value)

"""How well the latency that a search went by fits what was measured afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import plotly.graph_objects as go

from mnasdet.reporting import page
from mnasdet.search.trial_store import Trial

_LINE, _POINT = "#8b95a5", "#3b82f6"


def error(trial: Trial, measured_ms: float) -> float:
    """By which share of the measured latency the predicted one is too high."""
    assert trial.latency_ms is not None
    return trial.latency_ms / measured_ms - 1


def section(trials: Sequence[Trial], measured_ms: Mapping[int, float] | None) -> str:
    """A chart and its gist; "" where nothing was measured.

    Args:
      measured_ms: by trial number; of some trials.
    """
    measured_ms = measured_ms or {}
    pairs = [
        (trial, measured_ms[trial.number])
        for trial in trials
        if trial.number in measured_ms and trial.latency_ms is not None
    ]
    if not pairs:
        return ""
    charts = page.chart("Predicted and measured latency", _scatter(pairs), "chart medium")
    charts += page.chart("Error of the prediction", _errors(pairs), "chart medium")
    content = f'{page.note(_gist(pairs))}<div class="pair">{charts}</div>'
    return page.section("Predicted and measured latency", content)


def _gist(pairs: Sequence[tuple[Trial, float]]) -> str:
    errors = [error(trial, measured) for trial, measured in pairs]
    mean = sum(map(abs, errors)) / len(errors)
    worst, at = max((abs(e), -trial.number) for e, (trial, _) in zip(errors, pairs, strict=True))
    text = (
        f"The prediction is off by {mean:.1%} on average and by {worst:.1%} at most (trial {-at})."
    )
    ordered = [
        (a.latency_ms - b.latency_ms) * (measured_a - measured_b) > 0
        for (a, measured_a), (b, measured_b) in combinations(pairs, 2)
    ]
    if ordered:
        text += f" It puts {sum(ordered):,} of {len(ordered):,} pairs in their true order."
    return text


def _scatter(pairs: Sequence[tuple[Trial, float]]) -> go.Figure:
    predicted = [trial.latency_ms for trial, _ in pairs]
    measured = [value for _, value in pairs]
    ends = [min(predicted + measured), max(predicted + measured)]
    figure = page.figure("predicted (ms)", "measured (ms)")
    figure.add_trace(
        go.Scatter(
            x=ends,
            y=ends,
            mode="lines",
            line={"color": _LINE, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=predicted,
            y=measured,
            mode="markers",
            marker={"size": 9, "color": _POINT},
            customdata=[[trial.number, 100 * error(trial, value)] for trial, value in pairs],
            hovertemplate=(
                "<b>trial %{customdata[0]}</b><br>predicted %{x:.4~g} ms, measured %{y:.4~g} ms: "
                "%{customdata[1]:+.1f} %<extra></extra>"
            ),
        )
    )
    return figure


def _errors(pairs: Sequence[tuple[Trial, float]]) -> go.Figure:
    """Of every trial, the fastest first."""
    pairs = sorted(pairs, key=lambda pair: pair[1])
    errors = [100 * error(trial, value) for trial, value in pairs]
    figure = page.figure("trial, fastest first", "predicted too high by (%)")
    figure.add_trace(
        go.Bar(
            x=[f"{trial.number}" for trial, _ in pairs],
            y=errors,
            marker={"color": _POINT},
            customdata=[[trial.number] for trial, _ in pairs],
            hovertemplate="<b>trial %{x}</b>: %{y:+.1f} %<extra></extra>",
        )
    )
    figure.update_xaxes(type="category")
    return figure.update_yaxes(zeroline=True, zerolinecolor=_LINE)

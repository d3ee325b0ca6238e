"""How well the latency that a search went by fits what was measured afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

from mnasdet.reporting import page
from mnasdet.search.trials.trial_store import Trial

_LINE, _POINT = "#8b95a5", "#3b82f6"


@dataclass(frozen=True)
class Latency:
    """The latencies of one trial, in milliseconds."""

    trial: int
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Returns by which share of the measured latency the predicted one is too high."""
        return self.predicted / self.measured - 1


def latencies(
    trials: Sequence[Trial], measured_ms: Mapping[int, float] | None
) -> dict[int, Latency]:
    """Returns the trials that were measured, by number; the search's costs have to be in ms."""
    measured_ms = measured_ms or {}
    return {
        trial.number: Latency(trial.number, trial.cost, measured_ms[trial.number])
        for trial in trials
        if trial.number in measured_ms and trial.cost is not None
    }


def note(
    in_search: float, measured: float | None, benchmark: Mapping[str, Any] | None, source: str
) -> str:
    """Says why one network has several latencies.

    Args:
      in_search: what the reward went by, in ms; `source`: where it is from.
      measured: of the frontier; None if it was not measured.
      benchmark: of the trained file.
    """
    parts = [f"{page.latency(in_search)} ms in the search: {source or 'what the reward went by'}."]
    if measured is not None:
        parts.append(
            f"{page.latency(measured)} ms on the frontier: the whole network with random weights, "
            "measured after the search, the fastest of several turns."
        )
    if benchmark:
        runs = f"{benchmark['num_runs']} runs" if "num_runs" in benchmark else "its runs"
        parts.append(
            f"{page.latency(benchmark['median_ms'])} ms of the trained file: the median of {runs}"
            + (", which were noisy." if benchmark.get("noisy") else ".")
        )
    return "One network, latency by latency: " + " ".join(parts) if len(parts) > 1 else ""


def section(latencies: Sequence[Latency], note: str = "") -> Markup:
    """Returns two charts, their gist and the note ahead of it; nothing without measurements."""
    if not latencies:
        return Markup()
    charts = page.chart("Predicted and measured latency", _scatter(latencies), "chart medium")
    charts += page.chart("Error of the prediction", _errors(latencies), "chart medium")
    told = f"{note} {gist(latencies)}".strip()
    content = Markup('{}<div class="pair">{}</div>').format(page.note(told), charts)
    return page.section("Predicted and measured latency", content)


def gist(latencies: Sequence[Latency]) -> str:
    """Tells mean and largest error, and how many pairs are in their true order.

    The order is what a search goes by.
    """
    mean = sum(abs(latency.error) for latency in latencies) / len(latencies)
    worst = max(latencies, key=lambda latency: abs(latency.error))
    text = (
        f"The prediction is off by {mean:.1%} on average and by {abs(worst.error):.1%} at most "
        f"(trial {worst.trial})."
    )
    ordered = [
        (a.predicted - b.predicted) * (a.measured - b.measured) > 0
        for a, b in combinations(latencies, 2)
    ]
    if ordered:
        text += f" It puts {sum(ordered):,} of {len(ordered):,} pairs in their true order."
    return text


def _scatter(latencies: Sequence[Latency]) -> go.Figure:
    predicted = [latency.predicted for latency in latencies]
    measured = [latency.measured for latency in latencies]
    # The diagonal, where prediction and measurement agree.
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
            customdata=[[latency.trial, 100 * latency.error] for latency in latencies],
            hovertemplate=Markup(
                "<b>trial %{customdata[0]}</b><br>predicted %{x:.4~g} ms, measured %{y:.4~g} ms: "
                "%{customdata[1]:+.1f} %<extra></extra>"
            ),
        )
    )
    return figure


def _errors(latencies: Sequence[Latency]) -> go.Figure:
    """Draws the error of every trial, the fastest first."""
    ordered = sorted(latencies, key=lambda latency: latency.measured)
    figure = page.figure("trial, fastest first", "predicted - measured (% of measured)")
    figure.add_trace(
        go.Bar(
            x=[str(latency.trial) for latency in ordered],
            y=[100 * latency.error for latency in ordered],
            marker={"color": _POINT},
            customdata=[[latency.trial] for latency in ordered],
            hovertemplate=Markup("<b>trial %{x}</b>: %{y:+.1f} %<extra></extra>"),
        )
    )
    # Plotly would take the trials' numbers for places on the axis.
    figure.update_xaxes(type="category")
    # As much room below zero as above: bars of one sign alone do not tell which it is.
    most = max(abs(100 * latency.error) for latency in ordered) or 1.0
    return figure.update_yaxes(
        zeroline=True, zerolinecolor=_LINE, zerolinewidth=1.5, range=[-1.15 * most, 1.15 * most]
    )

"""The frontier as a table in HTML, with a drawing of every member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from mnasdet.reporting.latency_check import Latency
from mnasdet.search.axes import DEFAULT, Axes
from mnasdet.search.trials.trial_store import Trial


def table(
    members: Sequence[Trial],
    strings: Mapping[int, str],
    drawings: Mapping[int, Markup],
    latencies: Mapping[int, Latency],
    axes: Axes = DEFAULT,
) -> Markup:
    """Returns the members in rows, the fastest first.

    Args:
      strings: architecture strings by trial number, as are `drawings` and the latencies of
        those that were measured.
      axes: of the search.
    """
    searched = "ms in the search" if latencies else axes.unit
    columns = ["trial", axes.accuracy, searched, *(["measured ms", "error"] if latencies else [])]
    header = Markup().join(Markup('<th scope="col">{}</th>').format(name) for name in columns)
    rows = Markup().join(
        Markup('<tr>{}<td class="text string"><code>{}</code></td></tr>{}').format(
            _cells(trial, latencies, axes),
            strings[trial.number],
            _drawing_row(drawings[trial.number], len(columns) + 1),
        )
        for trial in members
    )
    return Markup(
        '<h3>On the frontier</h3><div class="wide scroll"><table class="members"><thead><tr>'
        '{}<th scope="col" class="text">architecture</th></tr></thead>'
        "<tbody>{}</tbody></table></div>"
    ).format(header, rows)


def _cells(trial: Trial, latencies: Mapping[int, Latency], axes: Axes) -> Markup:
    """Returns the cells of figures.

    `data-unit` is shown after the number where there is no room for a header.
    """
    cells = Markup(
        '<td>{}</td><td data-unit="{}">{:.4f}</td><td data-unit="{}">{:.3f}</td>'
    ).format(trial.number, axes.accuracy, trial.accuracy, axes.unit, trial.cost)
    latency = latencies.get(trial.number)
    if latency:
        cells += Markup(
            '<td data-unit="ms measured">{:.3f}</td><td data-unit="error">{:+.1%}</td>'
        ).format(latency.measured, latency.error)
    elif latencies:
        cells += Markup("<td></td><td></td>")
    return cells


def _drawing_row(drawing: Markup, columns: int) -> Markup:
    if not drawing:
        return Markup()
    return Markup('<tr class="graph"><td colspan="{}">{}</td></tr>').format(columns, drawing)

"""The frontier as a table in HTML, with a drawing of every member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from mnasdet.evaluation.coco import MAP
from mnasdet.reporting.latency_check import Latency
from mnasdet.search.trial_store import Trial


def table(
    members: Sequence[Trial],
    strings: Mapping[int, str],
    drawings: Mapping[int, str],
    latencies: Mapping[int, Latency],
    unit: str = "ms",
) -> str:
    """Fastest first.

    Args:
      strings: architecture strings by trial number, as are HTML `drawings` and the latencies of
        those that were measured.
      unit: of the latency source.
    """
    searched = "ms in the search" if latencies else unit
    columns = ["trial", "mAP", searched, *(["measured ms", "error"] if latencies else [])]
    header = "".join(f'<th scope="col">{name}</th>' for name in columns)
    rows = "".join(
        f"<tr>{''.join(_cells(trial, latencies, unit))}"
        f'<td class="text string"><code>{escape(strings[trial.number])}</code></td></tr>'
        + _drawing_row(drawings[trial.number], len(columns) + 1)
        for trial in members
    )
    return (
        '<h3>On the frontier</h3><div class="wide scroll"><table class="members"><thead><tr>'
        f'{header}<th scope="col" class="text">architecture</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cells(trial: Trial, latencies: Mapping[int, Latency], unit: str) -> list[str]:
    """`data-unit` is shown behind the number where there is no room for a header."""
    cells = [
        f"<td>{trial.number}</td>",
        f'<td data-unit="mAP">{trial.metrics[MAP]:.4f}</td>',
        f'<td data-unit="{unit}">{trial.latency_ms:.3f}</td>',
    ]
    latency = latencies.get(trial.number)
    if latency:
        cells.append(f'<td data-unit="ms measured">{latency.measured:.3f}</td>')
        cells.append(f'<td data-unit="error">{latency.error:+.1%}</td>')
    elif latencies:
        cells += ["<td></td>"] * 2
    return cells


def _drawing_row(drawing: str, columns: int) -> str:
    return f'<tr class="graph"><td colspan="{columns}">{drawing}</td></tr>' if drawing else ""

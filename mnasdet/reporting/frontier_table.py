"""The frontier as a table in HTML, with a drawing of every member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from mnasdet.evaluation.coco import MAP
from mnasdet.reporting import latency_check
from mnasdet.search.trial_store import Trial


def table(
    members: Sequence[Trial],
    strings: Mapping[int, str],
    drawings: Mapping[int, str],
    measured_ms: Mapping[int, float] | None,
) -> str:
    """Fastest first.

    Args:
      strings: architecture strings by trial number, as are HTML `drawings` and milliseconds.
    """
    measured_ms = measured_ms or {}
    columns = ["trial", "mAP", "ms", *(["measured ms", "error"] if measured_ms else [])]
    header = "".join(f'<th scope="col">{name}</th>' for name in columns)
    rows = "".join(
        f"<tr>{''.join(_cells(trial, measured_ms))}"
        f'<td class="text string"><code>{escape(strings[trial.number])}</code>'
        f"{drawings[trial.number]}</td></tr>"
        for trial in members
    )
    return (
        '<h3>On the frontier</h3><div class="wide"><table class="members"><thead><tr>'
        f'{header}<th scope="col" class="text">architecture</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cells(trial: Trial, measured_ms: Mapping[int, float]) -> list[str]:
    """`data-unit` is shown behind the number where there is no room for a header."""
    cells = [
        f"<td>{trial.number}</td>",
        f'<td data-unit="mAP">{trial.metrics[MAP]:.4f}</td>',
        f'<td data-unit="ms">{trial.latency_ms:.3f}</td>',
    ]
    measured = measured_ms.get(trial.number)
    if measured is not None:
        cells.append(f'<td data-unit="ms measured">{measured:.3f}</td>')
        cells.append(f'<td data-unit="error">{latency_check.error(trial, measured):+.1%}</td>')
    elif measured_ms:
        cells += ["<td></td>"] * 2
    return cells

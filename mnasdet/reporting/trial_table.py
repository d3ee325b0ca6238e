"""The trials of a search as a table in HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from mnasdet.evaluation.coco import MAP
from mnasdet.search.trial_store import Trial, TrialState

# Rows of complete, failed and rejected trials each; more make a page that nobody reads.
MOST_ROWS = 200

_COLUMNS = (
    "trial",
    "state",
    "mAP",
    "ms",
    "M multiply-adds",
    "M params",
    "reward",
    "duplicate of",
    "seconds",
    "error",
)
_TEXT = ("state", "error")


def table(
    trials: Sequence[Trial], best: Trial | None, strings: Mapping[int, str], unit: str = "ms"
) -> str:
    """One row a trial, best reward first, those without a result last; of very many only some.

    A cell's `data-value` is what its column is sorted by. The architecture string is the number's
    tooltip; `unit` is that of the latency source.
    """
    shown = rows(trials)
    note = "Click a column to sort by it."
    if len(shown) < len(trials):
        note = (
            f"Of {len(trials):,} trials the {MOST_ROWS} best, and as many of those that failed or "
            f"were rejected. {note}"
        )
    header = "".join(
        f'<th scope="col"{_text_class(name)}><button type="button">{heading}</button></th>'
        for name, heading in [(name, unit if name == "ms" else name) for name in _COLUMNS]
    )
    body = "".join(_row(trial, best, strings.get(trial.number, "")) for trial in shown)
    return (
        f'<p class="soft small">{note}</p><div class="wide scroll"><table class="sortable">'
        f"<thead><tr>{header}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def rows(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that the table shows."""
    without = (TrialState.FAILED, TrialState.REJECTED)
    others = [trial for trial in trials if trial.state not in without]
    shown = sorted(others, key=_by_reward)[:MOST_ROWS]
    for state in without:
        shown += [trial for trial in trials if trial.state is state][:MOST_ROWS]
    return shown


def _by_reward(trial: Trial) -> tuple[bool, float, int]:
    return trial.reward is None, -(trial.reward or 0.0), trial.number


def _row(trial: Trial, best: Trial | None, string: str) -> str:
    cells = {name: _number(value, text) for name, (value, text) in _figures(trial).items()}
    cells["trial"] = f'<td data-value="{trial.number}" title="{escape(string)}">{trial.number}</td>'
    cells["state"] = f'<td class="text" data-value="{trial.state.value}">{trial.state.value}</td>'
    error = escape(trial.error or "")
    cells["error"] = f'<td class="text error" data-value="{error}" title="{error}">{error}</td>'
    kind = ' class="best"' if best and trial.number == best.number else ""
    row = "".join(cells[name] for name in _COLUMNS)
    return f'<tr id="trial-{trial.number}"{kind}>{row}</tr>'


def _figures(trial: Trial) -> dict[str, tuple[float | None, str]]:
    """Value and format of every column with numbers."""
    metrics = trial.metrics
    return {
        "mAP": (metrics.get(MAP), ".4f"),
        "ms": (trial.latency_ms, ".3f"),
        "M multiply-adds": (_millions(metrics.get("multiply_adds")), ",.1f"),
        "M params": (_millions(metrics.get("params")), ",.3f"),
        "reward": (trial.reward, ".4f"),
        "duplicate of": (trial.duplicate_of, "d"),
        "seconds": (trial.seconds, ",.1f"),
    }


def _millions(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _number(value: float | None, spec: str) -> str:
    if value is None:
        return '<td data-value=""></td>'
    return f'<td data-value="{value:.9g}">{value:{spec}}</td>'


def _text_class(name: str) -> str:
    return ' class="text"' if name in _TEXT else ""

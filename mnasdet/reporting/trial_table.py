"""The trials of a search as HTML: a table, and why some failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from mnasdet.evaluation.coco import MAP
from mnasdet.search.trial_store import Trial, TrialState

# Rows of trials with and of trials without a result; more make a page that nobody reads.
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


def table(trials: Sequence[Trial], best: Trial | None, strings: Mapping[int, str]) -> str:
    """One row a trial, best reward first; only the best and some failed ones of very many.

    A cell's `data-value` is what its column is sorted by. The architecture string is the number's
    tooltip.
    """
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    others = sorted(
        (trial for trial in trials if trial.state is not TrialState.FAILED), key=_by_reward
    )
    shown = others[:MOST_ROWS] + failed[:MOST_ROWS]
    note = "Click a column to sort by it."
    if len(shown) < len(trials):
        note = (
            f"The {min(len(others), MOST_ROWS):,} best of {len(others):,} trials and "
            f"{min(len(failed), MOST_ROWS):,} of {len(failed):,} failed ones. {note}"
        )
    header = "".join(
        f'<th scope="col"{_text_class(name)}><button type="button">{name}</button></th>'
        for name in _COLUMNS
    )
    rows = "".join(_row(trial, best, strings[trial.number]) for trial in shown)
    return (
        f'<p class="soft small">{note}</p><div class="wide trials"><table class="sortable">'
        f"<thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


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
    seconds = None
    if trial.started and trial.finished:
        seconds = (trial.finished - trial.started).total_seconds()
    metrics = trial.metrics
    return {
        "mAP": (metrics.get(MAP), ".4f"),
        "ms": (trial.latency_ms, ".3f"),
        "M multiply-adds": (_millions(metrics.get("multiply_adds")), ",.1f"),
        "M params": (_millions(metrics.get("params")), ",.3f"),
        "reward": (trial.reward, ".4f"),
        "duplicate of": (trial.duplicate_of, "d"),
        "seconds": (seconds, ",.1f"),
    }


def _millions(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _number(value: float | None, spec: str) -> str:
    if value is None:
        return '<td data-value=""></td>'
    return f'<td data-value="{value:.9g}">{value:{spec}}</td>'


def _text_class(name: str) -> str:
    return ' class="text"' if name in _TEXT else ""


def failures(trials: Sequence[Trial]) -> str:
    """The reasons, most frequent first, each with its trials; "" when none failed."""
    by_reason: dict[str, list[int]] = {}
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    for trial in failed[:MOST_ROWS]:
        by_reason.setdefault(trial.error or "unknown", []).append(trial.number)
    items = "".join(
        f"<li><b>{escape(reason)}</b><br>"
        f'<span class="soft small">trial {", ".join(map(str, numbers))}</span></li>'
        for reason, numbers in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    )
    if not items:
        return ""
    note = ""
    if len(failed) > MOST_ROWS:
        note = f'<p class="soft small">Of the first {MOST_ROWS} of {len(failed):,}.</p>'
    return f'{note}<ul class="reasons">{items}</ul>'

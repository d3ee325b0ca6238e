"""The trials of a search as a table in HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from mnasdet.reporting import page
from mnasdet.search.axes import DEFAULT, Axes
from mnasdet.search.chain import SINGLE, Chain
from mnasdet.search.trials.trial_store import Trial, TrialState

# Rows of complete, failed and rejected trials each; more make a page that nobody reads.
MOST_ROWS = 200

_COLUMNS = (
    "trial",
    "stage",  # In a search that has two.
    "state",
    "accuracy",
    "cost",
    "M multiply-adds",
    "M params",
    "reward",
    "duplicate of",
    "seconds",
    "error",
)
_TEXT = ("state", "error")


def table(
    trials: Sequence[Trial],
    best: Trial | None,
    strings: Mapping[int, str],
    axes: Axes = DEFAULT,
    chain: Chain = SINGLE,
) -> Markup:
    """Returns one row a trial, best reward first, those without a result last.

    Of very many trials only some are shown. A cell's `data-value` is what its column is sorted by.
    The architecture string is the number's tooltip.
    """
    shown = rows(trials)
    note = "Click a column to sort by it."
    if len(shown) < len(trials):
        note = (
            f"Of {len(trials):,} trials the {MOST_ROWS} best, and as many of those that failed or "
            f"were rejected. {note}"
        )
    columns = [name for name in _COLUMNS if name != "stage" or chain.is_chained]
    headers = {"accuracy": axes.accuracy, "cost": axes.unit}
    header = Markup().join(
        Markup('<th scope="col"{}><button type="button">{}</button></th>').format(
            _text_class(name), headers.get(name, name)
        )
        for name in columns
    )
    body = Markup().join(
        _row(trial, best, strings.get(trial.number, ""), columns, chain) for trial in shown
    )
    return Markup(
        '{}<div class="wide scroll"><table class="sortable">'
        "<thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(page.note(note), header, body)


def rows(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trials that the table shows."""
    without = (TrialState.FAILED, TrialState.REJECTED)
    # Each state has rows of its own: a search that rejects much still shows its failures.
    others = [trial for trial in trials if trial.state not in without]
    shown = sorted(others, key=_by_reward)[:MOST_ROWS]
    for state in without:
        shown += [trial for trial in trials if trial.state is state][:MOST_ROWS]
    return shown


def _by_reward(trial: Trial) -> tuple[bool, float, int]:
    return trial.reward is None, -(trial.reward or 0.0), trial.number


def _row(
    trial: Trial, best: Trial | None, string: str, columns: Sequence[str], chain: Chain
) -> Markup:
    cells = {name: _number(value, text) for name, (value, text) in _figures(trial).items()}
    cells["stage"] = _number(chain.stage(trial), "d")
    cells["trial"] = Markup('<td data-value="{0}" title="{1}">{0}</td>').format(
        trial.number, string
    )
    cells["state"] = Markup('<td class="text" data-value="{0}">{0}</td>').format(trial.state.value)
    cells["error"] = Markup('<td class="text error" data-value="{0}" title="{0}">{0}</td>').format(
        trial.error or ""
    )
    kind = Markup(' class="best"') if best and trial.number == best.number else ""
    row = Markup().join(cells[name] for name in columns)
    return Markup('<tr id="trial-{}"{}>{}</tr>').format(trial.number, kind, row)


def _figures(trial: Trial) -> dict[str, tuple[float | None, str]]:
    """Returns value and format of every column with numbers."""
    metrics = trial.metrics
    return {
        "accuracy": (trial.accuracy, ".4f"),
        "cost": (trial.cost, ".3f"),
        "M multiply-adds": (_millions(metrics.get("multiply_adds")), ",.1f"),
        "M params": (_millions(metrics.get("params")), ",.3f"),
        "reward": (trial.reward, ".4f"),
        "duplicate of": (trial.duplicate_of, "d"),
        "seconds": (trial.seconds, ",.1f"),
    }


def _millions(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _number(value: float | None, spec: str) -> Markup:
    if value is None:
        return Markup('<td data-value=""></td>')
    # Sorted by more digits than are shown.
    return Markup('<td data-value="{:.9g}">{:{}}</td>').format(value, value, spec)


def _text_class(name: str) -> Markup:
    return Markup(' class="text"') if name in _TEXT else Markup()

"""Why trials have no result."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markupsafe import Markup

from mnasdet.search.trials.trial_store import Trial, TrialState

_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")

# Trial numbers shown of one reason.
_MOST_NUMBERS = 40


def html(trials: Sequence[Trial], state: TrialState) -> Markup:
    """Returns the reasons of the trials in a state, most frequent first, each with its trials;
    nothing when there are none. Reasons that differ only in numbers are one."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.state is state:
            groups.setdefault(_NUMBER.sub("0", _reason(trial)), []).append(trial)
    items = Markup().join(map(_item, sorted(groups.values(), key=len, reverse=True)))
    return Markup('<ul class="reasons">{}</ul>').format(items) if items else Markup()


def _reason(trial: Trial) -> str:
    return trial.error or "unknown"


def _item(group: Sequence[Trial]) -> Markup:
    numbers = ", ".join(str(trial.number) for trial in group[:_MOST_NUMBERS])
    # Thousands of trials may fail for one reason.
    if len(group) > _MOST_NUMBERS:
        numbers += ", …"
    count = f"{len(group):,} trials: " if len(group) > 1 else "trial "
    return Markup('<li><b>{}</b><br><span class="soft small">{}{}</span></li>').format(
        summary([_reason(trial) for trial in group]), count, numbers
    )


def summary(reasons: Sequence[str]) -> str:
    """Returns one line for several with other numbers: "1,024 to 2,048 params are over …"."""
    numbers = zip(*(_NUMBER.findall(reason) for reason in reasons), strict=True)
    ranges = iter([_range(values) for values in numbers])
    return _NUMBER.sub(lambda match: next(ranges), reasons[0])


def _range(values: Sequence[str]) -> str:
    ordered = sorted(set(values), key=lambda value: float(value.replace(",", "")))
    return ordered[0] if len(ordered) == 1 else f"{ordered[0]} to {ordered[-1]}"

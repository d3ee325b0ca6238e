"""Opens failed trials again, for a search to train once more."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mnasdet.errors import UserError
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore


def failed(trials: Sequence[Trial]) -> list[int]:
    """Returns the numbers of the trials that failed by themselves, not as a duplicate."""
    return [
        trial.number
        for trial in trials
        if trial.state is TrialState.FAILED and trial.duplicate_of is None
    ]


def reopen(store: TrialStore, numbers: Collection[int]) -> list[Trial]:
    """Opens failed trials and the duplicates that took over their failure, and returns them.

    The proposals that followed were made by a controller that had been told of the failure. They
    stay as they are: a search that goes on tells the controller of it again (`told_failed`), and
    takes the new result for everything else.

    Raises:
      UserError: one of the numbers is of no failed trial, or another process is at work on the
        search.
    """
    with store.claimed():
        for number in numbers:
            _check(store.trial(number))
        trials = store.trials()
        last = max((trial.number for trial in trials), default=0)
        # Trial n + max_pending_trials is the first one that was proposed knowing of trial n; all of
        # a second stage are proposed knowing of all of the first.
        description = store.description() or {}
        pending = description.get("max_pending_trials", 0)
        later = [stage["first"] for stage in description.get("stages", [])[1:]]
        # Duplicates first: where this is cut short, their originals can be reset once more.
        trials.sort(key=lambda trial: trial.duplicate_of is None)
        return [
            store.update(
                trial,
                state=TrialState.PENDING,
                error=None,
                worker=None,
                started=None,
                finished=None,
                told_failed=trial.told_failed
                or trial.number + pending <= last
                or any(trial.number < first <= last for first in later),
            )
            for trial in trials
            if trial.state is TrialState.FAILED and {trial.number, trial.duplicate_of} & {*numbers}
        ]


def _check(trial: Trial) -> None:
    """Raises UserError for a trial that is not to be trained once more."""
    if trial.state is not TrialState.FAILED:
        raise UserError(f"trial {trial.number} is {trial.state.value}; only failed ones are reset")
    if trial.duplicate_of is not None:
        raise UserError(
            f"trial {trial.number} took its result from trial {trial.duplicate_of}; reset that one"
        )

"""The figures of a search while it runs."""

from __future__ import annotations

from mnasdet.reporting.proposals import SlidingEntropy
from mnasdet.search.frontier import pareto
from mnasdet.search.trials.trial_store import Trial, TrialState
from mnasdet.search_spaces.space import SearchSpace


class RunningFigures:
    """The figures of all trials added so far. What one costs does not grow with their number.

    Attributes:
      best: the trial with the highest reward, the first of equals; None without any.
      duplicates, failures, rejected: numbers of trials.
    """

    def __init__(self, space: SearchSpace | None = None) -> None:
        """Takes the `space` of the trials, for the entropy."""
        self.best: Trial | None = None
        self.duplicates = self.failures = self.rejected = 0
        self._entropy = SlidingEntropy(space.decisions) if space else None
        # (accuracy, cost) of the frontier so far.
        self._frontier: list[tuple[float, float]] = []
        self._largest_cost = 0.0

    def add(self, trial: Trial) -> None:
        self.duplicates += trial.duplicate_of is not None
        self.failures += trial.state is TrialState.FAILED
        self.rejected += trial.state is TrialState.REJECTED
        if self._entropy:
            self._entropy.add(trial.tokens)
        if trial.reward is None or trial.accuracy is None or trial.cost is None:
            return
        if self.best is None or _order(trial) < _order(self.best):
            self.best = trial
        self._largest_cost = max(self._largest_cost, trial.cost)
        points = [*self._frontier, (trial.accuracy, trial.cost)]
        self._frontier = [points[index] for index in pareto.frontier(points)]

    def scalars(self) -> dict[str, float]:
        """Returns the figures by name.

        The hypervolume goes down to accuracy 0 and out to the largest cost so far, so it never
        shrinks.
        """
        scalars: dict[str, float] = {
            "duplicates": self.duplicates,
            "failures": self.failures,
            "rejected": self.rejected,
        }
        if self._entropy:
            scalars["entropy"] = self._entropy.mean()
        if self.best and self.best.reward is not None:
            scalars["best_reward"] = self.best.reward
            scalars["hypervolume"] = pareto.hypervolume(self._frontier, (0.0, self._largest_cost))
        return scalars


def _order(trial: Trial) -> tuple[float, int]:
    return -(trial.reward or 0.0), trial.number

"""Two searches side by side: which found better detectors, and how soon."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from mnasdet.search.frontier import pareto
from mnasdet.search.trials.trial_store import Trial, TrialState


def compare(searches: Sequence[Sequence[Trial]]) -> dict[str, Any]:
    """Returns what the searches have in common, and each of them by itself under "searches".

    Hypervolumes are areas of accuracy x cost down to one common "reference" point, accuracy 0 and
    the largest cost of all complete trials. They and the rewards say something only
    where the searches had the same data, latency source and reward.
    """
    points = [_points(trials) for trials in searches]
    largest = max((cost for _, cost in itertools.chain(*points)), default=0.0)
    keys = [{trial.key for trial in trials} for trials in searches]
    steps = list(_steps(max(map(len, searches), default=0)))
    return {
        "reference": {"accuracy": 0.0, "cost": largest},
        "shared_architectures": len(set.intersection(*keys)),
        "searches": [
            _counts(trials)
            | {
                "best_reward": _best_reward(trials),
                "best_accuracy": max((accuracy for accuracy, _ in of_search), default=None),
                "hypervolume": pareto.hypervolume(of_search, (0.0, largest)),
                "best_reward_after": {
                    str(step): _best_reward_after(trials, step) for step in steps
                },
            }
            for trials, of_search in zip(searches, points, strict=True)
        ],
    }


def _counts(trials: Sequence[Trial]) -> dict[str, int]:
    states = Counter(trial.state for trial in trials)
    return {
        "trials": len(trials),
        **{state.value: states[state] for state in TrialState},
        "duplicates": sum(trial.duplicate_of is not None for trial in trials),
        "architectures": len({trial.key for trial in trials}),
    }


def _points(trials: Sequence[Trial]) -> list[tuple[float, float]]:
    """Returns (accuracy, cost) of the complete trials."""
    return [
        (trial.accuracy, trial.cost or 0.0)
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.accuracy is not None
    ]


def _best_reward(trials: Sequence[Trial]) -> float | None:
    return max((trial.reward for trial in trials if trial.reward is not None), default=None)


def _best_reward_after(trials: Sequence[Trial], step: int) -> float | None:
    """Returns the best reward of the first `step` trials; None while there are fewer."""
    return _best_reward(trials[:step]) if len(trials) >= step else None


def _steps(num_trials: int) -> Iterator[int]:
    """Yields 10, 20, 50, 100, 200, 500, ... up to `num_trials`."""
    steps = (factor * 10**power for power in itertools.count(1) for factor in (1, 2, 5))
    return itertools.takewhile(lambda step: step <= num_trials, steps)

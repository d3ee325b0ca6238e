"""The proposals of a controller, seen from its trials: how open it still is, and to what."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from mnasdet.search_spaces.space import Decision, SearchSpace, Tokens

# Trials over which proposals are counted; less than the least say nothing about a course.
WINDOW = 30
LEAST_TRIALS = 4

# Windows that `uniform_entropy` averages over.
_UNIFORM_WINDOWS = 20


class SlidingEntropy:
    """The entropy of the choices among the latest proposals, kept up to date at a cost that does
    not grow with the number of trials."""

    def __init__(self, decisions: Sequence[Decision], window: int = WINDOW) -> None:
        sizes = np.array([len(decision.choices) for decision in decisions], np.int64)
        self._rows = np.arange(len(sizes))
        self._open = sizes > 1
        self._scale = np.log(np.where(self._open, sizes, 2))
        self._counts = np.zeros((len(sizes), sizes.max(initial=1)), np.int64)
        counts = np.arange(window + 1)
        self._n_log_n = counts * np.log(np.maximum(counts, 1))
        # By decision: the sum of n log n over its choices' counts n.
        self._sums = np.zeros(len(sizes))
        self._latest: deque[Tokens] = deque()
        self._window = window

    def add(self, tokens: Tokens) -> None:
        if len(self._latest) == self._window:
            self._count(self._latest.popleft(), -1)
        self._latest.append(tokens)
        self._count(tokens, 1)

    def by_decision(self) -> np.ndarray:
        """Returns the entropy of each decision, [decisions].

        It is 0 where all proposals of the window agree, and where there is no choice; 1 where every
        choice is as frequent.
        """
        n = max(1, len(self._latest))
        return np.where(self._open, (np.log(n) - self._sums / n) / self._scale, 0.0)

    def mean(self) -> float:
        """Returns the mean over the decisions that have a choice."""
        return float(self.by_decision()[self._open].mean()) if self._open.any() else 0.0

    def shares(self) -> np.ndarray:
        """[decisions, most choices of one]: how frequent each choice is."""
        return self._counts / max(1, len(self._latest))

    def _count(self, tokens: Tokens, change: int) -> None:
        at = (self._rows, np.asarray(tokens, np.int64))
        before = self._counts[at]
        self._counts[at] = before + change
        self._sums += self._n_log_n[before + change] - self._n_log_n[before]


def window_of(num_trials: int) -> int:
    """Returns `WINDOW`, or half of few trials."""
    return min(WINDOW, max(2, num_trials // 2))


def entropies(
    proposals: Sequence[Tokens], decisions: Sequence[Decision], window: int
) -> list[float]:
    """Returns the mean entropy of every full window, in the order of their last proposals."""
    sliding = SlidingEntropy(decisions, window)
    means = []
    for tokens in proposals:
        sliding.add(tokens)
        means.append(sliding.mean())
    return means[window - 1 :]


def uniform_entropy(space: SearchSpace, window: int) -> float:
    """Returns the mean of `entropies` when every architecture is as likely as any other.

    It is less than 1: a window is a small sample, and earlier decisions narrow later ones.
    """
    rng = np.random.default_rng(0)
    sample = [space.sample(rng) for _ in range(_UNIFORM_WINDOWS * window)]
    return float(np.mean(entropies(sample, space.decisions, window)))

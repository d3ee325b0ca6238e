"""The interface of controllers, which propose architectures and learn from their results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from mnasdet.search_spaces.space import Tokens


class Result(NamedTuple):
    """The result of a proposal.

    Attributes:
      reward: None where the trial failed or was rejected.
      objectives: what the reward weighs, each the more the better: (accuracy, -cost). None
        where the reward is.
    """

    tokens: Tokens
    reward: float | None = None
    objectives: tuple[float, ...] | None = None


class Prior(NamedTuple):
    """The knowledge of a search before its first trial.

    Attributes:
      starts: architectures that it goes on from.
      cost: computes what an architecture costs, without a measurement; None where that is unknown.
    """

    starts: tuple[Tokens, ...] = ()
    cost: Callable[[Tokens], float] | None = None


NO_PRIOR = Prior()


class Controller(Protocol):
    """Proposes architectures and learns from their results.

    It is deterministic: the same seed, proposals and feedback in the same order give the same
    again, so that replaying a search's history restores its controller.
    """

    def propose(self, n: int) -> list[Tokens]:
        """Returns the next `n` token lists of the space, repetitions possible."""

    def feedback(self, results: Sequence[Result]) -> None:
        """Learns from finished trials, in the order in which they were proposed."""


def generator(seed: int, number: int) -> np.random.Generator:
    """Returns the randomness of proposal `number`, however many are asked for at once."""
    return np.random.default_rng((seed, number))

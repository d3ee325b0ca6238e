"""What proposes architectures and learns from their results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from mnasdet.search_spaces.space import Tokens


class Result(NamedTuple):
    """What came of a proposal.

    Attributes:
      reward: None where the trial failed or was rejected.
      objectives: what the reward weighs, each the more the better: (mAP, -latency in ms). None
        where the reward is.
    """

    tokens: Tokens
    reward: float | None = None
    objectives: tuple[float, ...] | None = None


class Controller(Protocol):
    """Deterministic: the same seed, proposals and feedback in the same order give the same again,
    so that replaying a search's history restores its controller."""

    def propose(self, n: int) -> list[Tokens]:
        """The next `n` token lists of the space, repetitions possible."""

    def feedback(self, results: Sequence[Result]) -> None:
        """Learns from finished trials, in the order in which they were proposed."""

    def state(self) -> dict[str, Any]:
        """Arrays and numbers, by name, that `restore` goes on from and `numpy.savez` can write."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes a `state` of a controller with the same arguments."""


def generator(seed: int, number: int) -> np.random.Generator:
    """The randomness of proposal `number`: it does not matter how many are asked for at once."""
    return np.random.default_rng((seed, number))


def to_arrays(results: Sequence[Result]) -> dict[str, Any]:
    """Results as arrays for a `state`; NaN for None."""
    missing = (np.nan, np.nan)
    return {
        "tokens": np.array([result.tokens for result in results], np.int32),
        "rewards": np.array([result.reward for result in results], np.float64),
        "objectives": np.array([result.objectives or missing for result in results], np.float64),
    }


def from_arrays(state: Mapping[str, Any]) -> list[Result]:
    """The results of `to_arrays`."""
    return [
        Result(
            tuple(tokens),
            None if np.isnan(reward) else float(reward),
            None if np.isnan(objectives).any() else tuple(map(float, objectives)),
        )
        for tokens, reward, objectives in zip(
            state["tokens"].tolist(), state["rewards"], state["objectives"], strict=True
        )
    ]

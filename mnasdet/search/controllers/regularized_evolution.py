"""Regularised evolution (Real et al., "Regularized Evolution for Image Classifier Architecture
Search", 2019, algorithm 1): the oldest die, not the worst."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mnasdet.protos import search_pb2
from mnasdet.search.controllers.controller import Result, from_arrays, generator, to_arrays
from mnasdet.search_spaces.space import SearchSpace, Tokens


class RegularizedEvolution:
    """A `Controller` that mutates the best of a few architectures drawn from the latest ones.

    Trials that failed never become parents.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        population_size: int = 100,
        tournament_size: int = 25,
    ) -> None:
        """Args:
        seed: not negative.
        population_size: P, the latest architectures; as many random ones come first.
        tournament_size: S, drawn with replacement; the best of them is the parent.
        """
        self._space = space
        self._seed = seed
        self._tournament_size = tournament_size
        self._population_size = population_size
        self._population: deque[Result] = deque(maxlen=population_size)
        self._num_proposed = 0

    def propose(self, n: int) -> list[Tokens]:
        first = self._num_proposed
        self._num_proposed += n
        return [self._propose(number) for number in range(first, self._num_proposed)]

    def _propose(self, number: int) -> Tokens:
        rng = generator(self._seed, number)
        if number < self._population_size or not self._population:
            return self._space.sample(rng)
        return self._space.mutate(self._parent(rng).tokens, rng)

    def _parent(self, rng: np.random.Generator) -> Result:
        drawn = rng.integers(len(self._population), size=self._tournament_size)
        return max((self._population[i] for i in drawn), key=_reward)

    def feedback(self, results: Sequence[Result]) -> None:
        self._population.extend(result for result in results if result.reward is not None)

    def state(self) -> dict[str, Any]:
        return {"num_proposed": self._num_proposed, **to_arrays(self._population)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self._num_proposed = int(state["num_proposed"])
        self._population.clear()
        self._population.extend(from_arrays(state))


def _reward(result: Result) -> float:
    assert result.reward is not None
    return result.reward


def from_config(
    config: search_pb2.RegularizedEvolutionConfig, space: SearchSpace, seed: int
) -> RegularizedEvolution:
    return RegularizedEvolution(
        space,
        seed=seed,
        population_size=config.population_size,
        tournament_size=config.tournament_size,
    )

"""Regularised evolution (Real et al., "Regularized Evolution for Image Classifier Architecture
Search", 2019, algorithm 1): the oldest die, not the worst."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnasdet.protos import search_pb2
from mnasdet.search.controllers.controller import Result
from mnasdet.search.controllers.evolution import Evolution
from mnasdet.search_spaces.space import SearchSpace, Tokens


class RegularizedEvolution(Evolution):
    """A `Controller` whose parents are the best of a few drawn from the latest architectures.

    The paper's children have one parent, its population 100 members of which 25 are drawn. With two
    parents a lucky result counts for less, and a smaller population suits searches of hundreds of
    trials instead of thousands: `benchmarks/controllers.py`. Trials that failed never become
    parents.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        population_size: int = 30,
        tournament_size: int = 8,
        crossover_probability: float = 1.0,
    ) -> None:
        """Args:
        seed, crossover_probability: those of `Evolution`.
        population_size: P, the latest architectures; as many random ones come first.
        tournament_size: S, drawn with replacement; the best of them is a parent.
        """
        super().__init__(
            space,
            seed=seed,
            population_size=population_size,
            crossover_probability=crossover_probability,
        )
        self._tournament_size = tournament_size

    def _parent(self, rng: np.random.Generator) -> Tokens:
        drawn = rng.integers(len(self._population), size=self._tournament_size)
        return max((self._population[i] for i in drawn), key=_reward).tokens

    def feedback(self, results: Sequence[Result]) -> None:
        self._population += [result for result in results if result.reward is not None]
        del self._population[: -self._population_size]  # The oldest.


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
        crossover_probability=config.crossover_probability,
    )

"""NSGA-II (Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002), one
child at a time, as asynchronous searches need it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnasdet.protos import search_pb2
from mnasdet.search.controllers.controller import Result
from mnasdet.search.controllers.evolution import Evolution
from mnasdet.search.controllers.fronts import crowding_distances, ranks
from mnasdet.search_spaces.space import SearchSpace, Tokens


class Nsga2(Evolution):
    """A `Controller` that keeps a population spread over the whole frontier.

    It looks at the objectives alone. Whenever the population is full, the architecture leaves it
    that lies behind the most fronts and, there, in the densest crowd. Trials that failed, and
    architectures that the population holds already, never enter it.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        population_size: int = 50,
        crossover_probability: float = 0.9,
    ) -> None:
        """Takes the arguments of `Evolution`."""
        super().__init__(
            space,
            seed=seed,
            population_size=population_size,
            crossover_probability=crossover_probability,
        )
        # For each member: the fronts before its own, and how far its neighbours on it are.
        self._ranks = self._distances = np.zeros(0)

    def _parent(self, rng: np.random.Generator) -> Tokens:
        """Returns the better of two: on an earlier front or, on the same, in a thinner crowd."""
        a, b = rng.integers(len(self._population), size=2)
        better = min(a, b, key=lambda i: (self._ranks[i], -self._distances[i]))
        return self._population[better].tokens

    def feedback(self, results: Sequence[Result]) -> None:
        for result in results:
            # Equal members would be each other's neighbours without any distance, and both be taken
            # for crowded.
            known = any(result.tokens == member.tokens for member in self._population)
            if result.objectives is not None and not known:
                self._population.append(result)
                self._assess()
                if len(self._population) > self._population_size:
                    del self._population[int(np.lexsort((-self._distances, self._ranks))[-1])]
                    self._assess()

    def _assess(self) -> None:
        points = np.array([member.objectives for member in self._population])
        self._ranks = ranks(points)
        self._distances = crowding_distances(points, self._ranks)


def from_config(config: search_pb2.Nsga2Config, space: SearchSpace, seed: int) -> Nsga2:
    return Nsga2(
        space,
        seed=seed,
        population_size=config.population_size,
        crossover_probability=config.crossover_probability,
    )

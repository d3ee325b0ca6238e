"""The part that the evolutionary controllers share."""

from __future__ import annotations

import abc

import numpy as np

from mnasdet.search.controllers.controller import Result, generator
from mnasdet.search_spaces.space import SearchSpace, Tokens


class Evolution(abc.ABC):
    """Proposes random architectures first, then children of its population.

    A `Controller` together with the `_parent` and the `feedback` of a subclass: who become parents,
    and who lives on.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        population_size: int,
        crossover_probability: float,
    ) -> None:
        """Args:
        seed: not negative.
        population_size: of the parents; as many random architectures come first.
        crossover_probability: how often a child has two parents. It is mutated always.
        """
        self._space = space
        self._seed = seed
        self._population_size = population_size
        self._crossover_probability = crossover_probability
        self._population: list[Result] = []
        self._num_proposed = 0

    def propose(self, n: int) -> list[Tokens]:
        first = self._num_proposed
        self._num_proposed += n
        return [self._propose(number) for number in range(first, self._num_proposed)]

    def _propose(self, number: int) -> Tokens:
        rng = generator(self._seed, number)
        # There may be no parent yet: results are late, or all trials so far failed.
        if number < self._population_size or not self._population:
            return self._space.sample(rng)
        child = self._parent(rng)
        if rng.random() < self._crossover_probability:
            child = self._space.cross(child, self._parent(rng), rng)
        # Mutated always: a cross of two equal parents would be a copy of them.
        return self._space.mutate(child, rng)

    @abc.abstractmethod
    def _parent(self, rng: np.random.Generator) -> Tokens:
        """Returns a member of the population, which is not empty."""

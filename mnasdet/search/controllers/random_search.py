"""Random search: the baseline that a controller has to beat."""

from __future__ import annotations

from collections.abc import Sequence

from mnasdet.protos import search_pb2
from mnasdet.search.controllers.controller import Result, generator
from mnasdet.search_spaces.space import SearchSpace, Tokens


class RandomSearch:
    """Draws every architecture of the space with the same probability. A `Controller`."""

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        """Takes a `seed` that is not negative."""
        self._space = space
        self._seed = seed
        self._num_proposed = 0

    def propose(self, n: int) -> list[Tokens]:
        first = self._num_proposed
        self._num_proposed += n
        return [
            self._space.sample(generator(self._seed, number))
            for number in range(first, self._num_proposed)
        ]

    def feedback(self, results: Sequence[Result]) -> None:
        """Learns nothing."""


def from_config(config: search_pb2.RandomConfig, space: SearchSpace, seed: int) -> RandomSearch:
    return RandomSearch(space, seed=seed)

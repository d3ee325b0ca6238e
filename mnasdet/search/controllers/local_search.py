"""Local search (White et al., "Exploring the Loss Landscape in Neural Architecture Search", 2021):
one changed decision after the other, wherever that is better."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from mnasdet.protos import search_pb2
from mnasdet.search.controllers.controller import Result, generator
from mnasdet.search_spaces.space import SearchSpace, Tokens


class LocalSearch:
    """A `Controller` that climbs from the best of a few random architectures.

    It tries the neighbours of the best one in a random order and moves on at the first that is
    better. When none is, a new climb starts. While the last neighbours are still in training, the
    new climb's random architectures are proposed.

    Rewards are noisy, and none of the neighbours of a lucky architecture would be better: what has
    to be beaten goes up by a share of every gain alone.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        num_starts: int = 10,
        believed_gain: float = 0.5,
    ) -> None:
        """Args:
        seed: not negative.
        num_starts: random architectures at the foot of every climb.
        believed_gain: that share; 1 for rewards without noise.
        """
        self._space = space
        self._seed = seed
        self._num_starts = num_starts
        self._believed_gain = believed_gain
        self._num_proposed = self._num_known = 0
        # Where the climb is: its number, its random architectures and those of the next one.
        self._climb = self._started = self._started_next = 0
        # Decisions and choices that are to be tried on the best one.
        self._neighbours: list[tuple[int, int]] = []
        # The best of this climb and of the next, with the rewards that are to be beaten, and the
        # climb of every proposal without result.
        self._best: dict[int, Result] = {}
        self._pending: deque[int] = deque()

    def propose(self, n: int) -> list[Tokens]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Tokens:
        rng = generator(self._seed, self._num_proposed)
        self._num_proposed += 1
        if self._is_over():
            self._climb += 1
            self._started, self._started_next = self._started_next, 0
            self._look_around()
        if self._started < self._num_starts:
            self._started += 1
            self._pending.append(self._climb)
            return self._space.sample(rng)
        if self._neighbours:
            self._pending.append(self._climb)
            index, choice = self._neighbours.pop()
            return self._space.change(self._best[self._climb].tokens, index, choice, rng)
        self._started_next += 1
        self._pending.append(self._climb + 1)
        return self._space.sample(rng)

    def _is_over(self) -> bool:
        """Returns whether everything of this climb was tried, and every result is known."""
        tried = self._started >= self._num_starts and not self._neighbours
        return tried and self._climb not in self._pending

    def feedback(self, results: Sequence[Result]) -> None:
        for result in results:
            climb = self._pending.popleft()
            self._num_known += 1
            if result.reward is None:
                continue
            reward = result.reward
            beaten = self._best[climb].reward if climb in self._best else None
            # A gain that is believed in part only: a lucky training would otherwise end the climb.
            if beaten is not None:
                if reward <= beaten:
                    continue
                reward = beaten + self._believed_gain * (reward - beaten)
            self._best[climb] = result._replace(reward=reward)
            if climb == self._climb:
                self._look_around()

    def _look_around(self) -> None:
        """Lists all neighbours of the best one so far, in a random order."""
        self._neighbours = []
        if best := self._best.get(self._climb):
            tokens = best.tokens
            self._neighbours = [
                (index, choice)
                for index in range(len(tokens))
                for choice in self._space.allowed(index, tokens)
                if choice != tokens[index]
            ]
            # No proposal has so large a number, so this randomness is not that of any.
            generator(self._seed, 2**32 + self._num_known).shuffle(self._neighbours)


def from_config(config: search_pb2.LocalSearchConfig, space: SearchSpace, seed: int) -> LocalSearch:
    return LocalSearch(
        space, seed=seed, num_starts=config.num_starts, believed_gain=config.believed_gain
    )

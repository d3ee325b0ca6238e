"""Partial-order pruning (Li et al., "Partial Order Pruning: For Best Speed/Accuracy Trade-Off in
Neural Architecture Search", 2019) in an evolution of the front, as SM-NAS searches (section 3.4).

The assumption: an architecture that is no deeper and no wider than another one, a ⪯ b, is no more
accurate and costs no more. What follows from it for a candidate x that was never trained:

- accuracy(x) ≤ accuracy(w) for every trained w with x ⪯ w; the least of these is its bound. But
  trainings are noisy, and the least of many is an unlucky one: it is the k-th least that counts.
- cost(x) ≥ cost(v) for every trained v with v ⪯ x; the largest of these is its bound. Where the
  search can compute costs ahead of a training, the cost itself is better than any bound.

x is pruned if a member of the front is at least as accurate as the first bound and costs no more
than the second. That member is then at least level with x in both, whatever x turns out to be.
It would not be enough that a w with x ⪯ w is dominated: x is cheaper than w, and may be cheaper
than everything that dominates w.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging

from mnasdet.protos import search_pb2
from mnasdet.search.controllers.controller import Prior, Result, generator
from mnasdet.search.controllers.fronts import crowding_distances
from mnasdet.search.frontier import pareto
from mnasdet.search_spaces.space import SearchSpace, Tokens

# Candidates that are drawn until one is new and not pruned.
_MAX_DRAWS = 100

# After so many fruitless ones a candidate is one mutation further away from its parent.
_DRAWS_A_MUTATION = 25

# No proposal has so large a number, so this randomness is not that of any.
_EXCEPTIONS = 2**32


class PartialOrder:
    """A `Controller` that mutates the members of the front, and leaves out what cannot join it.

    It proposes no architecture twice as long as it finds others. Where it finds none, it repeats a
    member of the front, which costs a search nothing.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int = 0,
        num_starts: int = 10,
        trust: float = 1.0,
        num_witnesses: int = 2,
        starts: Sequence[Tokens] = (),
        cost: Callable[[Tokens], float] | None = None,
    ) -> None:
        """Args:
        seed: not negative.
        num_starts: random architectures that come first, where there are no `starts`.
        trust: the share of pruned candidates that stay pruned.
        num_witnesses: trained architectures that have to bound a candidate's accuracy.
        starts: architectures that come first, and are parents until results are there.
        cost: computes what an architecture costs, without noise; None where nobody can.
        """
        self._space = space
        self._seed = seed
        self._num_starts = len(starts) or num_starts
        self._trust = trust
        self._num_witnesses = num_witnesses
        self._starts = tuple(starts)
        self._cost = cost
        self._num_proposed = 0
        self._proposed: set[Tokens] = set()
        # (accuracy, cost) of what was trained, and of the members of the front.
        self._known: dict[Tokens, tuple[float, float]] = {}
        self._front: list[Tokens] = []
        self._distances = np.zeros(0)
        if not space.has_order:
            logging.warning("the search space has no order: nothing is pruned")

    def propose(self, n: int) -> list[Tokens]:
        return [self._propose() for _ in range(n)]

    def _propose(self) -> Tokens:
        number = self._num_proposed
        self._num_proposed += 1
        rng = generator(self._seed, number)
        is_start = number < len(self._starts)
        tokens = self._starts[number] if is_start else self._new(number, rng)
        self._proposed.add(tokens)
        return tokens

    def _new(self, number: int, rng: np.random.Generator) -> Tokens:
        parents = self._front or self._starts
        parent: Tokens | None = None
        for draw in range(_MAX_DRAWS):
            # There may be no parent yet: results are late, or all trials so far failed.
            if number < self._num_starts or not parents:
                tokens = self._space.sample(rng)
            else:
                tokens = parent = self._parent(parents, rng)
                for _ in range(1 + draw // _DRAWS_A_MUTATION):
                    tokens = self._space.mutate(tokens, rng)
            if tokens not in self._proposed and not self._stays_pruned(tokens):
                return tokens
        # A search knows the result of a known architecture already.
        return parent or tokens

    def _parent(self, parents: Sequence[Tokens], rng: np.random.Generator) -> Tokens:
        """Returns one of two members of the front: the one in the thinner crowd."""
        a, b = rng.integers(len(parents), size=2)
        if parents is self._front and self._distances[b] > self._distances[a]:
            return parents[b]
        return parents[a]

    def _stays_pruned(self, tokens: Tokens) -> bool:
        if not self._is_pruned(tokens):
            return False
        # Drawn for the architecture and not for the draw: an exception stays one, and what is
        # met often is no likelier to become one.
        rng = np.random.default_rng((self._seed, _EXCEPTIONS, *tokens))
        return bool(rng.random() < self._trust)

    def _is_pruned(self, tokens: Tokens) -> bool:
        if not self._space.has_order:
            return False
        precedes = self._space.precedes
        above = sorted(
            accuracy for known, (accuracy, _) in self._known.items() if precedes(tokens, known)
        )
        if len(above) < self._num_witnesses:
            return False
        # The lowest may be an unlucky training.
        most_accurate = above[self._num_witnesses - 1]
        front = [self._known[member] for member in self._front]
        rivals = [cost for accuracy, cost in front if accuracy >= most_accurate]
        return bool(rivals) and self._least_cost(tokens) >= min(rivals)

    def _least_cost(self, tokens: Tokens) -> float:
        if self._cost:
            return self._cost(tokens)
        precedes = self._space.precedes
        below = [cost for known, (_, cost) in self._known.items() if precedes(known, tokens)]
        return max(below, default=-math.inf)

    def feedback(self, results: Sequence[Result]) -> None:
        for result in results:
            # A failure says nothing of what is deeper, or less deep.
            if result.objectives is not None:
                accuracy, negative_cost = result.objectives
                self._known[result.tokens] = (accuracy, -negative_cost)
        known = list(self._known.items())
        members = [known[place] for place in pareto.frontier([held for _, held in known])]
        self._front = [tokens for tokens, _ in members]
        points = np.array([held for _, held in members]).reshape(-1, 2)
        self._distances = crowding_distances(points, np.zeros(len(points), int))


def from_config(
    config: search_pb2.PartialOrderConfig, space: SearchSpace, seed: int, prior: Prior
) -> PartialOrder:
    return PartialOrder(
        space,
        seed=seed,
        num_starts=config.num_starts,
        trust=config.trust,
        num_witnesses=config.num_witnesses,
        starts=prior.starts,
        cost=prior.cost,
    )

"""From the probabilities of a supernet's operations to single networks. No TensorFlow."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from itertools import islice

from mnasdet.errors import UserError
from mnasdet.search.controllers.controller import Result
from mnasdet.search.differentiable.records import Probabilities
from mnasdet.search_spaces.space import SearchSpace, Tokens


def most_probable(probabilities: Sequence[Sequence[float]]) -> Iterator[Tokens]:
    """Yields the choices of every layer, the most probable ones first.

    A network's probability is the product over its layers. Operations without a probability are in
    no network; of equally probable operations the first one counts as the more probable.

    Args:
      probabilities: of each operation of each layer.
    """
    ranks = [
        [
            (-math.log(row[token]), token)
            for token in sorted(range(len(row)), key=lambda token: (-row[token], token))
            if row[token] > 0
        ]
        for row in probabilities
    ]
    # A network is the ranks of its operations; the next ones have one rank more in one layer.
    first = (0,) * len(ranks)
    open_networks = [(_surprise(ranks, first), first)]
    seen = {first}
    while open_networks:
        # A further rank is never more probable: no network that is opened later belongs before it.
        _, network = heapq.heappop(open_networks)
        yield tuple(rank[place][1] for rank, place in zip(ranks, network, strict=True))
        for layer, place in enumerate(network):
            following = (*network[:layer], place + 1, *network[layer + 1 :])
            if place + 1 < len(ranks[layer]) and following not in seen:
                seen.add(following)
                heapq.heappush(open_networks, (_surprise(ranks, following), following))


def _surprise(ranks: Sequence[Sequence[tuple[float, int]]], network: Sequence[int]) -> float:
    # Exactly rounded, so that the order of the layers decides nothing.
    return math.fsum(rank[place][0] for rank, place in zip(ranks, network, strict=True))


class Derived:
    """A `Controller` that proposes the most probable networks of a trained supernet."""

    def __init__(self, space: SearchSpace, probabilities: Probabilities):
        """
        Args:
          space: of the supernet, before operations were screened.
        """
        rows = [
            [probabilities[decision.name].get(str(op), 0.0) for op in decision.choices]
            for decision in space.decisions
        ]
        self._networks = most_probable(rows)
        self._num_proposed = 0

    def propose(self, n: int) -> list[Tokens]:
        """Raises UserError where the supernet has no further network."""
        proposed = list(islice(self._networks, n))
        self._num_proposed += len(proposed)
        if len(proposed) < n:
            raise UserError(
                f"search_config.num_trials: the supernet has {self._num_proposed} networks; ask "
                "for no more of them"
            )
        return proposed

    def feedback(self, results: Sequence[Result]) -> None:
        """Learns nothing: the choices are made."""

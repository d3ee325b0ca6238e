"""A made-up accuracy for the architectures of the MnasFPN space, so that controllers can be
compared on thousands of samples without any training.

Nothing here was fitted to real trainings; it has the shape that those have. With m the pyramid's
billions of multiply-adds, the mAP is

    0.30 · (1 - exp(-m / 0.06))             more work is better, less and less so
         · (0.55 + 0.45 · reach)            an output needs what the levels around it know
         + 0.020 · (pairs - 0.5)            some choices only pay in certain company

- reach: the share of all pairs (incoming level, output level) that the cell connects, each counted
  less the further apart the levels are: 1 / (1 + distance).
- pairs: for each of 60 pairs of decisions, drawn once with seed 0, a table of random numbers in
  [0, 1] says how well two choices go together; `pairs` is the mean over them, stretched to a
  standard deviation of one half of its range. That makes the landscape rugged.

Latency is that of a table of single layers, measured once on a real machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnasdet.networks.cost import CostSheet
from mnasdet.protos import architecture_pb2
from mnasdet.search_spaces.space import SearchSpace

_NUM_PAIRS = 60


@dataclass(frozen=True)
class _Pair:
    first: int
    second: int
    table: np.ndarray


class Surrogate:
    """The mAP of architectures of a MnasFPN space, without noise."""

    def __init__(self, space: SearchSpace):
        # Always the same landscape: searches with different seeds climb one and the same hill.
        rng = np.random.default_rng(0)
        self._pairs = []
        for _ in range(_NUM_PAIRS):
            first, second = sorted(rng.choice(len(space.decisions), 2, replace=False).tolist())
            shape = [len(space.decisions[i].choices) for i in (first, second)]
            self._pairs.append(_Pair(first, second, rng.random(shape)))

    def accuracy(
        self,
        tokens: Sequence[int],
        architecture: architecture_pb2.Architecture,
        sheet: CostSheet,
    ) -> float:
        """Args:
        sheet: of the architecture's whole network.
        """
        work = sheet.parts["feature_pyramid"].multiply_adds / 1e9
        company = np.mean(
            [pair.table[tokens[pair.first], tokens[pair.second]] for pair in self._pairs]
        )
        # The mean of 60 uniform numbers deviates by 0.037.
        pairs = 0.5 + (company - 0.5) / 0.037 * 0.25
        capacity = 1 - np.exp(-work / 0.06)
        return float(0.30 * capacity * (0.55 + 0.45 * reach(architecture)) + 0.020 * (pairs - 0.5))


def reach(architecture: architecture_pb2.Architecture) -> float:
    """Returns the weighted share of pairs of incoming and output levels that a cell connects."""
    pyramid = architecture.feature_pyramid.mnasfpn
    levels = range(pyramid.min_level, pyramid.max_level + 1)
    seen = [{level} for level in levels]
    for block in pyramid.block:
        # A node knows the levels that anything it reads knows.
        seen.append(set().union(*(seen[i] for i in block.input)))
    outputs = zip(pyramid.block[-len(levels) :], seen[-len(levels) :], strict=True)
    connected = sum(
        1 / (1 + abs(level - block.level)) for block, known in outputs for level in known
    )
    return connected / sum(1 / (1 + abs(a - b)) for a in levels for b in levels)

"""The cost sheet: what a network costs, layer by layer, read off its graph without TensorFlow."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from mnasdet.networks.builder import Node, reachable

_FLOAT_BYTES = 4


class Cost(NamedTuple):
    """The cost of some layers for one image.

    Attributes:
      params: weights, the moving averages of batch normalisation included.
      trainable_params: weights that gradients change.
      multiply_adds: of convolutions, as the papers count.
      memory_bytes: float32 bytes of weights and activations read and written.
    """

    params: int = 0
    trainable_params: int = 0
    multiply_adds: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True)
class CostSheet:
    """The layers that run, in order, and what each costs. A shared layer's weights count once.

    Attributes:
      outputs: what the network ends in.
    """

    nodes: list[Node]
    costs: list[Cost]
    outputs: Sequence[Node]

    @cached_property
    def total(self) -> Cost:
        return _sum(self.costs)

    @property
    def parts(self) -> dict[str, Cost]:
        """Returns the costs by the outermost scope: backbone, feature_pyramid, box_predictor."""
        parts: dict[str, list[Cost]] = defaultdict(list)
        for node, cost in zip(self.nodes, self.costs, strict=True):
            parts[node.name.partition("/")[0]].append(cost)
        return {part: _sum(costs) for part, costs in parts.items()}


def cost_sheet(outputs: Sequence[Node]) -> CostSheet:
    """Returns the cost of the network that ends in `outputs`."""
    nodes = [node for node in reachable(outputs) if node.op != "input"]
    seen: set[str] = set()
    costs = []
    # A layer that several levels share computes at each of them, but is stored once.
    for node in nodes:
        costs.append(_cost(node, count_weights=node.name not in seen))
        seen.add(node.name)
    return CostSheet(nodes, costs, outputs)


def _sum(costs: Sequence[Cost]) -> Cost:
    return Cost(*map(sum, zip(*costs, strict=True)))


def _cost(node: Node, count_weights: bool) -> Cost:
    values = math.prod(node.shape)
    trainable = fixed = multiply_adds = 0
    # Normalisations, activations and additions count no multiply-adds, as in MnasFPN's and
    # MnasNet's tables; NAS-FPN prints twice our number as FLOPs.
    if node.op in ("conv2d", "depthwise_conv2d"):
        taps = _taps(node)
        multiply_adds = values * taps
        trainable = node.channels * (taps + node.attrs["use_bias"])
    elif node.op == "batch_norm":
        trainable = (node.attrs["center"] + node.attrs["scale"]) * node.channels
        # The moving mean and variance: no gradient changes them, but a checkpoint and a phone hold
        # them.
        fixed = 2 * node.channels
    elif node.op == "group_norm":
        trainable = 2 * node.channels
    for node_in in node.inputs:
        values += math.prod(node_in.shape)
    weights = trainable + fixed
    # By position, which takes half the time. A search prices every proposal.
    return Cost(
        weights * count_weights,
        trainable * count_weights,
        multiply_adds,
        _FLOAT_BYTES * (values + weights),
    )


def _taps(node: Node) -> int:
    """Returns the weights of one output channel's kernel."""
    size = node.attrs["kernel_size"]
    area = size**2 if isinstance(size, int) else math.prod(size)
    if node.op == "depthwise_conv2d":
        return area
    return area * node.inputs[0].channels // node.attrs["groups"]

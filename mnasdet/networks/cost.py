"""The cost sheet: what a network costs, layer by layer, read off its graph without TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from mnasdet.networks.builder import Node, reachable

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """What some layers cost for one image.

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

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.params + other.params,
            self.trainable_params + other.trainable_params,
            self.multiply_adds + other.multiply_adds,
            self.memory_bytes + other.memory_bytes,
        )


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
        return sum(self.costs, Cost())

    @property
    def parts(self) -> dict[str, Cost]:
        """By the outermost scope: backbone, feature_pyramid, box_predictor."""
        parts: dict[str, Cost] = {}
        for node, cost in zip(self.nodes, self.costs, strict=True):
            part = node.name.partition("/")[0]
            parts[part] = parts.get(part, Cost()) + cost
        return parts


def cost_sheet(outputs: Sequence[Node]) -> CostSheet:
    """The cost of the network that ends in `outputs`."""
    nodes = [node for node in reachable(outputs) if node.op != "input"]
    seen: set[str] = set()
    costs = []
    for node in nodes:
        costs.append(_cost(node, count_weights=node.name not in seen))
        seen.add(node.name)
    return CostSheet(nodes, costs, outputs)


def _cost(node: Node, count_weights: bool) -> Cost:
    kernel, fixed = _weights(node)
    activations = math.prod(node.shape) + sum(math.prod(x.shape) for x in node.inputs)
    return Cost(
        params=(kernel + fixed) * count_weights,
        trainable_params=kernel * count_weights,
        multiply_adds=_multiply_adds(node),
        memory_bytes=_FLOAT_BYTES * (activations + kernel + fixed),
    )


def _weights(node: Node) -> tuple[int, int]:
    """Trainable and untrainable weights of the node's layer."""
    match node.op:
        case "conv2d" | "depthwise_conv2d":
            return node.channels * (_taps(node) + node.attrs["use_bias"]), 0
        case "batch_norm":
            return (node.attrs["center"] + node.attrs["scale"]) * node.channels, 2 * node.channels
    return 0, 0


def _multiply_adds(node: Node) -> int:
    if node.op in ("conv2d", "depthwise_conv2d"):
        return math.prod(node.shape) * _taps(node)
    return 0


def _taps(node: Node) -> int:
    """Weights of one output channel's kernel."""
    size = node.attrs["kernel_size"]
    area = size**2 if isinstance(size, int) else math.prod(size)
    if node.op == "depthwise_conv2d":
        return area
    return area * node.inputs[0].channels // node.attrs["groups"]

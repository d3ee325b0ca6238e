"""The cost sheet: what a network costs, layer by layer, read off its graphs without TensorFlow."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from mnasdet.networks.builder import Node, reachable
from mnasdet.networks.graph import Graph, Network

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
class GraphSheet:
    """The layers of one graph, in order, and what each costs in a single run of it.

    Attributes:
      outputs: what the graph ends in.
      times: how often the graph runs for one image.
    """

    nodes: list[Node]
    costs: list[Cost]
    outputs: Sequence[Node]
    times: int = 1


@dataclass(frozen=True)
class CostSheet:
    """The costs of a network's graphs. A shared layer's weights count once."""

    graphs: Sequence[GraphSheet]

    @property
    def runs(self) -> int:
        """Returns how many graphs are run for one image, each as often as it runs."""
        return sum(graph.times for graph in self.graphs)

    @cached_property
    def total(self) -> Cost:
        """Sums up the graphs: weights once, and work as often as the graph runs."""
        return _sum(_repeated(_sum(graph.costs), graph.times) for graph in self.graphs)

    @property
    def parts(self) -> dict[str, Cost]:
        """Returns the costs by the outermost scope: backbone, feature_pyramid, box_predictor."""
        parts: dict[str, list[Cost]] = defaultdict(list)
        for graph in self.graphs:
            for node, cost in zip(graph.nodes, graph.costs, strict=True):
                parts[node.name.partition("/")[0]].append(_repeated(cost, graph.times))
        return {part: _sum(costs) for part, costs in parts.items()}


def cost_sheet(network: Network | Sequence[Node]) -> CostSheet:
    """Returns the costs of a network, or of the single graph that ends in some nodes."""
    if not isinstance(network, Network):
        network = Network({"": Graph({str(place): node for place, node in enumerate(network)})})
    seen: set[str] = set()  # Over all graphs: layers of one name have the same weights.
    return CostSheet([_graph_sheet(graph, seen) for graph in network])


def _graph_sheet(graph: Graph, seen: set[str]) -> GraphSheet:
    nodes = [node for node in reachable(graph.nodes) if node.op != "input"]
    costs = []
    # A layer that several levels share computes at each of them, but is stored once.
    for node in nodes:
        costs.append(layer_cost(node, count_weights=node.name not in seen))
        seen.add(node.name)
    return GraphSheet(nodes, costs, graph.nodes, graph.times)


def _repeated(cost: Cost, times: int) -> Cost:
    """Returns the cost of several runs: the weights stay the same."""
    if times == 1:
        return cost
    return cost._replace(
        multiply_adds=times * cost.multiply_adds, memory_bytes=times * cost.memory_bytes
    )


def _sum(costs: Iterable[Cost]) -> Cost:
    return Cost(*map(sum, zip(*costs, strict=True)))


def layer_cost(node: Node, *, count_weights: bool = True) -> Cost:
    """Returns the cost of one layer.

    Args:
      count_weights: false for a further use of a layer whose weights are counted already.
    """
    values = math.prod(node.shape)
    trainable = fixed = multiply_adds = 0
    # Normalisations, activations and additions count no multiply-adds, as in MnasFPN's and
    # MnasNet's tables; NAS-FPN prints twice our number as FLOPs.
    # A deformable convolution counts as the plain one: interpolation is no weight's work.
    if node.op in ("conv2d", "depthwise_conv2d", "deformable_conv2d"):
        taps = _taps(node)
        multiply_adds = values * taps
        trainable = node.channels * (taps + node.attrs.get("use_bias", False))
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
    return area * node.inputs[0].channels // node.attrs.get("groups", 1)

"""Graphs that compute what narrower ones do: the channels that a feature has not are zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mnasdet.networks.builder import Node
from mnasdet.networks.choices import rewritten

# The operations whose output has the channels of their input.
_KEEPING = (
    "activation",
    "avg_pool",
    "batch_norm",
    "depthwise_conv2d",
    "dropout",
    "global_avg_pool",
    "max_pool",
    "upsample",
)


def masked(outputs: Sequence[Node], masks: Mapping[str, Node]) -> list[Node]:
    """Returns a graph that keeps zeros where features end.

    Convolutions read zeros as if they were not there, but an offset of a normalisation fills them.

    Args:
      masks: (1, 1, channels) of 1 and 0 for inputs of the graph, by their names.
    """
    of_nodes: dict[Node, Node] = {}

    def filled(node: Node, new: Mapping[Node, Node]) -> Node | None:
        if node.op == "input" and node.name in masks:
            of_nodes[node] = masks[node.name]
        if node.op not in _KEEPING or node.inputs[0] not in of_nodes:
            return None
        mask = of_nodes[node] = of_nodes[node.inputs[0]]
        # All others keep zeros. That holds for activations that are 0 at 0, such as ReLU and hard
        # swish, and would not for a sigmoid.
        if node.op != "batch_norm" and not node.attrs.get("use_bias"):
            return None
        plain = Node(node.op, node.name, (new[node.inputs[0]],), node.shape, node.attrs)
        return Node("multiply", f"{node.name}/mask", (plain, mask), node.shape)

    return rewritten(outputs, filled)

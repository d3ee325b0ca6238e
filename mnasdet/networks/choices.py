"""The choices that a supernet leaves open: what each candidate owns and costs, and what is derived.

A supernet is a network with `Builder.choice` nodes. The layers that only one candidate of a choice
needs are its branch. No TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from mnasdet.networks.builder import Node, reachable
from mnasdet.networks.cost import layer_cost
from mnasdet.networks.graph import Graph, Network


@dataclass(frozen=True)
class Mixing:
    """How a supernet computes its choices in training.

    Attributes:
      kind: "softmax" adds up all branches, weighed by the softmax of the choice's alpha (Guo et
        al., "Hit-Detector", 2020, equation 5). "gumbel" runs one branch, drawn with those
        probabilities, and hands alpha the gradient of its probability (Dong and Yang, "Searching
        for A Robust Neural Architecture in Four GPU Hours", 2019). "uniform" runs one branch, each
        as likely as any other.
      recompute: whether the backward pass of "softmax" computes a branch once more, in place of
        keeping what the forward pass computed. Memory then holds the layers of one branch at a
        time. The other kinds run no more than one branch in any case.
    """

    kind: str = "softmax"
    recompute: bool = False


@dataclass(frozen=True)
class Branch:
    """One candidate of a choice.

    Attributes:
      output: the candidate.
      nodes: its own layers, each after its inputs; none where a candidate is a feature that others
        read as well, such as the identity.
      inputs: the features that its layers read and that are not its own.
    """

    output: Node
    nodes: tuple[Node, ...]
    inputs: tuple[Node, ...]


def choices(outputs: Sequence[Node]) -> list[Node]:
    """Returns the choices of a graph, each after those that it builds on."""
    return [node for node in reachable(outputs) if node.op == "choice"]


def branches(outputs: Sequence[Node]) -> dict[Node, list[Branch]]:
    """Returns the branches of every choice, in the order of its candidates.

    Raises:
      ValueError: a choice stands inside a candidate of another one: what the outer one costs would
        depend on the inner one.
    """
    readers: dict[Node, list[tuple[Node, int]]] = {}
    nodes = reachable(outputs)
    for node in nodes:
        for place, node_in in enumerate(node.inputs):
            readers.setdefault(node_in, []).append((node, place))
    # A node's owner is the candidate that all its readers belong to: (choice, place), or None.
    owner: dict[Node, tuple[Node, int] | None] = dict.fromkeys(outputs)
    # Readers first: a node belongs to a candidate when all that reads it does.
    for node in reversed(nodes):
        if node in owner:
            continue
        owners = {
            (reader, place) if reader.op == "choice" else owner[reader]
            for reader, place in readers[node]
        }
        single = owners.pop() if len(owners) == 1 else None
        # An input comes from outside, whatever reads it.
        owner[node] = None if node.op == "input" else single
    found: dict[Node, list[Branch]] = {}
    for choice in choices(outputs):
        if owner[choice] is not None:
            raise ValueError(
                f"choice {choice.name} stands inside a candidate of {owner[choice][0].name}"  # type: ignore[index]
            )
        found[choice] = [
            _branch(candidate, [node for node in nodes if owner[node] == (choice, place)])
            for place, candidate in enumerate(choice.inputs)
        ]
    return found


def _branch(candidate: Node, own: list[Node]) -> Branch:
    inputs = [node_in for node in own for node_in in node.inputs if node_in not in own]
    # A candidate without layers, such as the identity, reads itself.
    return Branch(candidate, tuple(own), tuple(dict.fromkeys(inputs or [candidate])))


def derive(network: Network, chosen: Mapping[str, int]) -> Network:
    """Returns the network that is left when every choice is made.

    Its layers have the names of the network that is built with the chosen candidates alone.

    Args:
      chosen: the candidate of every choice, by the choice's name.
    """

    def picked(node: Node, new: Mapping[Node, Node]) -> Node | None:
        return new[node.inputs[chosen[node.name]]] if node.op == "choice" else None

    graphs = {}
    for name, graph in network.graphs.items():
        nodes = rewritten(graph.nodes, picked)
        graphs[name] = Graph(dict(zip(graph.outputs, nodes, strict=True)), graph.times)
    return Network(graphs)


def rewritten(
    outputs: Sequence[Node], replace: Callable[[Node, Mapping[Node, Node]], Node | None]
) -> list[Node]:
    """Returns a graph in which some nodes have been replaced.

    Args:
      replace: takes a node and the new nodes of all before it; None keeps the node, over its new
        inputs.
    """
    new: dict[Node, Node] = {}
    for node in reachable(outputs):
        replaced = replace(node, new)
        if replaced is None:
            inputs = tuple(new[node_in] for node_in in node.inputs)
            same = all(a is b for a, b in zip(inputs, node.inputs, strict=True))
            replaced = node if same else Node(node.op, node.name, inputs, node.shape, node.attrs)
        new[node] = replaced
    return [new[node] for node in outputs]


@dataclass(frozen=True)
class ChoiceCosts:
    """The cost of a supernet's networks, in any unit that adds up over layers.

    Attributes:
      fixed: the cost of the layers that every network has.
      of_candidates: the cost of every candidate of every choice, by the choice's name.
    """

    fixed: float
    of_candidates: dict[str, list[float]]

    def of(self, chosen: Mapping[str, int]) -> float:
        """Returns the cost of the network that is derived by `chosen`."""
        return self.fixed + sum(costs[chosen[name]] for name, costs in self.of_candidates.items())


def costs(network: Network, of_node: Callable[[Node], float] | None = None) -> ChoiceCosts:
    """Returns what a network costs whatever is chosen, and what each candidate adds.

    Args:
      of_node: the cost of one layer: its multiply-adds if left out; milliseconds by a latency
        table, for example.
    """
    of_node = of_node or (lambda node: layer_cost(node).multiply_adds)
    fixed = 0.0
    of_candidates = {}
    for graph in network:
        found = branches(graph.nodes)
        own = {node for branch in chain(*found.values()) for node in branch.nodes}
        for node in reachable(graph.nodes):
            if node.op not in ("input", "choice") and node not in own:
                # The graph of a region runs once for every proposal.
                fixed += graph.times * of_node(node)
        for choice, of_choice in found.items():
            of_candidates[choice.name] = [
                graph.times * sum(map(of_node, branch.nodes)) for branch in of_choice
            ]
    return ChoiceCosts(fixed, of_candidates)


def cardinality(network: Network) -> int:
    """Returns how many networks can be derived."""
    return math.prod(len(choice.inputs) for graph in network for choice in choices(graph.nodes))

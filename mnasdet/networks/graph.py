"""A network as one or more graphs, each of which runs once or several times for an image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mnasdet.networks.builder import Node, canonical_key


@dataclass(frozen=True)
class Graph:
    """A part of a network that runs as a whole.

    Attributes:
      outputs: the nodes that the graph ends in, by name.
      times: how often it runs for one image.
    """

    outputs: Mapping[str, Node]
    times: int = 1

    @property
    def nodes(self) -> list[Node]:
        """Returns the outputs without their names, in order."""
        return list(self.outputs.values())

    def key(self) -> str:
        """Returns the `canonical_key` of a single run."""
        return canonical_key(self.nodes)


@dataclass(frozen=True)
class Network:
    """The graphs of a network, by name; a one-stage detector and a classifier have one."""

    graphs: Mapping[str, Graph]

    def __iter__(self) -> Iterator[Graph]:
        return iter(self.graphs.values())

    @property
    def outputs(self) -> list[Node]:
        """Returns the outputs of all graphs, in order."""
        return [node for graph in self for node in graph.nodes]

    def key(self) -> str:
        """Returns a digest that two networks share when they are one network but for names.

        The key of a single graph that runs once is `canonical_key` of its outputs.
        """
        keys = [(graph.times, graph.key()) for graph in self]
        # Stored trials and latency tables were keyed before a network could have several graphs.
        if len(keys) == 1 and keys[0][0] == 1:
            return keys[0][1]
        return hashlib.sha256(repr(sorted(keys)).encode()).hexdigest()[:32]

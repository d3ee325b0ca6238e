"""The layers that the TFLite runtime executes of a network."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from mnasdet.networks.builder import Node
from mnasdet.networks.cost import CostSheet, GraphSheet

# The activations that TFLite runs as part of the layer in front, and those layers.
_FUSED_ACTIVATIONS = ("relu", "relu6")
_WITH_ACTIVATION = ("conv2d", "depthwise_conv2d", "group_norm", "add", "multiply")
_WITH_BATCH_NORM = ("conv2d", "depthwise_conv2d")
# Half of a hard sigmoid is: its sum joins the convolution's bias, its relu6 is fused, the product
# stays.
_FUSED_BY_CONVOLUTIONS = (*_FUSED_ACTIVATIONS, "hard_sigmoid")
# Layers that do something in training only.
_IDENTITIES = ("dropout", "drop_block", "stop_gradient")

# Layers whose output's shape does not follow from the inputs', and layers with a window.
_WITH_OUTPUT = ("conv2d", "upsample", "reshape")
_WITH_WINDOW = ("conv2d", "depthwise_conv2d", "max_pool", "avg_pool")


class Layer(NamedTuple):
    """A layer as the runtime executes it.

    Attributes:
      node: what it computes.
      activation: fused into it.
      memory_bytes: float32 bytes of weights and activations that it reads and writes in a run.
      times: how often it runs for one image.
    """

    node: Node
    activation: str = "linear"
    memory_bytes: int = 0
    times: int = 1

    @property
    def activation_bytes(self) -> int:
        """Returns the bytes of its inputs and its output, without the weights."""
        values = math.prod(self.node.shape)
        for x in self.node.inputs:
            values += math.prod(x.shape)
        return 4 * values

    @property
    def key(self) -> str:
        """Names all that its latency depends on: "conv2d 20x20x48->256 k1 s1 relu6"."""
        node, attrs = self.node, self.node.attrs
        op = node.op
        words = [attrs["function"] if op == "activation" else op]
        words += [_by(x.shape) for x in node.inputs]
        if op in _WITH_OUTPUT:
            words[-1] += f"->{node.channels if op == 'conv2d' else _by(node.shape)}"
        if op in _WITH_WINDOW:
            size = attrs.get("kernel_size") or attrs["size"]
            words.append(f"k{_side(size)} s{attrs['strides']}")
            if attrs.get("groups", 1) != 1:
                words.append(f"g{attrs['groups']}")
            if "dilation" in attrs:
                words.append(f"d{attrs['dilation']}")
        elif op == "group_norm":
            words.append(f"g{attrs['groups']}")
        elif op == "concat" and attrs["axis"] % len(node.shape):
            words.append(f"axis{attrs['axis'] % len(node.shape)}")
        if self.activation != "linear":
            words.append(self.activation)
        return " ".join(words)


def layers(sheet: CostSheet) -> list[Layer]:
    """Returns the layers that the runtime executes, in order.

    Batch normalisation runs as part of its convolution; relu and relu6 as part of a convolution,
    an addition or a product. What only training knows does not run, nor does the maximum of a
    single place.
    """
    return [layer for graph in sheet.graphs for layer in _layers(graph)]


def _layers(sheet: GraphSheet) -> list[Layer]:
    readers = _only_readers(sheet)
    fused: set[Node] = set()
    executed = []
    for node, cost in zip(sheet.nodes, sheet.costs, strict=True):
        if node in fused or _is_identity(node):
            continue
        last, activation = node, "linear"
        if node.op in _WITH_BATCH_NORM and (reader := _if(readers[last], "batch_norm")):
            last = reader
            fused.add(last)
        if node.op in _WITH_ACTIVATION and (reader := _if(readers[last], "activation")):
            function = reader.attrs["function"]
            convolves = node.op in _WITH_BATCH_NORM
            if function in (_FUSED_BY_CONVOLUTIONS if convolves else _FUSED_ACTIVATIONS):
                activation = function
                fused.add(reader)
        executed.append(Layer(node, activation, cost.memory_bytes, sheet.times))
    return executed


def _only_readers(sheet: GraphSheet) -> dict[Node, Node | None]:
    """Returns the one node that reads each node.

    Layers that only training knows are passed over. None stands for several readers, or for the
    end of the network.
    """
    readers: dict[Node, Node | None] = dict.fromkeys(sheet.outputs)
    for node in reversed(sheet.nodes):
        reader = readers[node] if _is_identity(node) else node
        for x in node.inputs:
            readers[x] = None if x in readers else reader
    return readers


def _is_identity(node: Node) -> bool:
    if node.op == "global_max_pool":
        return node.shape == node.inputs[0].shape
    return node.op in _IDENTITIES


def _if(reader: Node | None, op: str) -> Node | None:
    """Returns the reader, if it is of that op."""
    return reader if reader is not None and reader.op == op else None


@functools.cache
def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


@functools.cache
def _side(size: int | tuple[int, int]) -> str:
    """Returns "3", or "1x7" for a kernel that is no square."""
    if isinstance(size, int) or size[0] == size[1]:
        return str(size if isinstance(size, int) else size[0])
    return _by(size)

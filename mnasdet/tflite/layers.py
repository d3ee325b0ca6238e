"""The layers that the TFLite runtime executes of a network."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from mnasdet.networks.builder import Node
from mnasdet.networks.cost import CostSheet

# What TFLite runs as part of the layer in front, and in which layers.
_FUSED_ACTIVATIONS = ("relu", "relu6")
_WITH_ACTIVATION = ("conv2d", "depthwise_conv2d", "add", "multiply")
_WITH_BATCH_NORM = ("conv2d", "depthwise_conv2d")
# Half of a hard sigmoid is: its sum joins the convolution's bias, its relu6 is fused, the product
# stays.
_FUSED_BY_CONVOLUTIONS = (*_FUSED_ACTIVATIONS, "hard_sigmoid")
# What does something in training only.
_IDENTITIES = ("dropout", "drop_block")

# Whose output's shape does not follow from the inputs', and who looks at more than one place.
_WITH_OUTPUT = ("conv2d", "upsample", "reshape")
_WITH_WINDOW = ("conv2d", "depthwise_conv2d", "max_pool", "avg_pool")


@dataclass(frozen=True)
class Layer:
    """A layer as the runtime executes it.

    Attributes:
      node: what it computes.
      activation: fused into it.
      memory_bytes: float32 bytes of weights and activations that it reads and writes.
    """

    node: Node
    activation: str = "linear"
    memory_bytes: int = 0

    @property
    def activation_bytes(self) -> int:
        """Of `memory_bytes`, those of its inputs and its output."""
        shapes = [self.node.shape, *(x.shape for x in self.node.inputs)]
        return 4 * sum(map(math.prod, shapes))

    @property
    def key(self) -> str:
        """All that its latency depends on: "conv2d 20x20x48->256 k1 s1 relu6"."""
        node, attrs = self.node, self.node.attrs
        words = [attrs["function"] if node.op == "activation" else node.op]
        words += [_by(x.shape) for x in node.inputs]
        if node.op in _WITH_OUTPUT:
            words[-1] += f"->{_by(node.shape) if node.op != 'conv2d' else node.channels}"
        if node.op in _WITH_WINDOW:
            size = attrs.get("kernel_size") or attrs["size"]
            words += [f"k{_side(size)}", f"s{attrs['strides']}"]
        if attrs.get("groups", 1) != 1:
            words.append(f"g{attrs['groups']}")
        if node.op == "concat" and attrs["axis"] % len(node.shape):
            words.append(f"axis{attrs['axis'] % len(node.shape)}")
        if self.activation != "linear":
            words.append(self.activation)
        return " ".join(words)


def layers(sheet: CostSheet) -> list[Layer]:
    """The layers that the runtime executes, in order: batch normalisation runs as part of its
    convolution, relu and relu6 as part of a convolution, an addition or a product, and not at all
    what only training knows, or the maximum of a single place."""
    readers = _readers(sheet)
    fused: set[Node] = set()
    executed = []
    for node, cost in zip(sheet.nodes, sheet.costs, strict=True):
        if node in fused or _is_identity(node):
            continue
        last, activation = node, "linear"
        if node.op in _WITH_BATCH_NORM and (reader := _only(readers[last], "batch_norm")):
            last = reader
            fused.add(last)
        if node.op in _WITH_ACTIVATION and (reader := _only(readers[last], "activation")):
            function = reader.attrs["function"]
            convolves = node.op in _WITH_BATCH_NORM
            if function in (_FUSED_BY_CONVOLUTIONS if convolves else _FUSED_ACTIVATIONS):
                activation = function
                fused.add(reader)
        executed.append(Layer(node, activation, cost.memory_bytes))
    return executed


def _readers(sheet: CostSheet) -> dict[Node, list[Node | None]]:
    """What reads each node, past the layers that only training knows; None is whoever takes the
    network's outputs."""
    readers: dict[Node, list[Node | None]] = {node: [] for node in sheet.nodes}
    for output in sheet.outputs:
        readers[output].append(None)
    for node in reversed(sheet.nodes):
        for x in node.inputs:
            of_node = readers[node] if _is_identity(node) else [node]
            readers.setdefault(x, []).extend(of_node)
    return readers


def _is_identity(node: Node) -> bool:
    if node.op == "global_max_pool":
        return node.shape == node.inputs[0].shape
    return node.op in _IDENTITIES


def _only(readers: list[Node | None], op: str) -> Node | None:
    """The only reader, if it is of that op."""
    if len(readers) == 1 and readers[0] is not None and readers[0].op == op:
        return readers[0]
    return None


@functools.cache
def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _side(size: int | tuple[int, int]) -> str:
    """ "3", or "1x7" of a kernel that is no square."""
    if isinstance(size, int) or size[0] == size[1]:
        return str(size if isinstance(size, int) else size[0])
    return _by(size)

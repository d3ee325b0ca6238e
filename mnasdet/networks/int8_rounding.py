"""Where TFLite's int8 kernels round: read off the graph, without TensorFlow.

A kernel computes in int32 and rounds what it gives out. A batch normalisation and a relu after a
convolution belong to its kernel, however the convolution's weights are shared: each use of shared
weights has a kernel of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnasdet.errors import ConfigError
from mnasdet.networks.builder import Node, reachable

CONVOLUTIONS = ("conv2d", "depthwise_conv2d")

# Operations whose output is on the scale of their input: they only choose or move values.
_KEEPING = (
    "max_pool",
    "avg_pool",
    "global_max_pool",
    "upsample",
    "reshape",
    "dropout",
    "drop_block",
    "stop_gradient",
)

# Operations that TFLite has no int8 kernel for.
_UNSUPPORTED = ("deformable_conv2d",)

_FUSED_ACTIVATIONS = ("relu", "relu6")

# Activations whose output TFLite puts on a scale of its own, or whose range is known. A sigmoid's
# scale is 1/256, so that it never reaches 1.
FIXED_RANGES = {"sigmoid": (0.0, 255 / 256), "hard_sigmoid": (0.0, 1.0)}


@dataclass(frozen=True)
class Rounding:
    """The places where a network rounds.

    Attributes:
      nodes: those whose output is rounded, in order.
      lone_batch_norms: those that belong to no convolution's kernel.
    """

    nodes: list[Node]
    lone_batch_norms: set[Node]


def rounding(outputs: Sequence[Node]) -> Rounding:
    """Returns where the network of `outputs` rounds.

    Raises:
      ConfigError: TFLite has no int8 kernel for one of its layers.
    """
    nodes = reachable(outputs)
    for node in nodes:
        if node.op in _UNSUPPORTED:
            raise ConfigError(
                f"layer {node.name}: TFLite has no int8 kernel for {node.op}; leave out "
                "graph_rewriter, or guided_anchoring"
            )
    readers: dict[Node, list[Node | None]] = {node: [] for node in nodes}
    for node in nodes:
        for node_in in node.inputs:
            readers[node_in].append(node)
    # None stands for the caller, who reads the value as it is: nothing can be fused with it.
    for node in outputs:
        readers[node].append(None)  # From outside.

    def only_reader(node: Node) -> Node | None:
        return readers[node][0] if len(readers[node]) == 1 else None

    def fused(node: Node) -> bool:
        reader = only_reader(node)
        return reader is not None and _fuses(node, reader)

    on_concatenated_scale = set()
    for concat in nodes:
        if concat.op == "concat":
            # Its inputs have to be on one scale: they are rounded once, when they are together.
            for node in concat.inputs:
                # A pool or a reshape in between hands the scale on to the layer before it.
                while only_reader(node) and node.op in _KEEPING:
                    (node,) = node.inputs
                if only_reader(node) and not fixed_range(node):
                    on_concatenated_scale.add(node)
    return Rounding(
        [
            node
            for node in nodes
            if node.op not in _KEEPING and node not in on_concatenated_scale and not fused(node)
        ],
        {node for node in nodes if node.op == "batch_norm" and not fused(node.inputs[0])},
    )


def fixed_range(node: Node) -> tuple[float, float] | None:
    """Returns the range of a layer's output, if it is known ahead."""
    if node.op == "input":
        # Pixels reach every network as x * 2/255 - 1.
        return -1.0, 1.0
    return FIXED_RANGES.get(node.attrs["function"]) if node.op == "activation" else None


def _fuses(node: Node, reader: Node) -> bool:
    """Returns whether one kernel does both."""
    if reader.op == "batch_norm":
        return node.op in CONVOLUTIONS
    return (
        reader.op == "activation"
        and reader.attrs["function"] in _FUSED_ACTIVATIONS
        and node.op in (*CONVOLUTIONS, "batch_norm", "add", "multiply")
    )

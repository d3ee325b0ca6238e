"""Networks as TFLite graphs to be timed: with random weights, and without a converter.

The converter, and the Keras model that it wants, take seconds a network. What it would make of one
is known, `layers`: the file is written directly, in a fraction of a second, without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mnasdet.errors import ConfigError
from mnasdet.networks.builder import Node, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.tflite import graph_file
from mnasdet.tflite.latency.layers import Layer, layers

_INPUT = Node("input", "", (), (1, 1, 1))

# The fixed cost of invoking any graph, in ms, is the latency of this one.
NOTHING = Layer(Node("activation", "nothing", (_INPUT,), (1, 1, 1), {"function": "relu6"}))

_FUSED = {
    "linear": schema.ActivationFunctionType.NONE,
    "relu": schema.ActivationFunctionType.RELU,
    "relu6": schema.ActivationFunctionType.RELU6,
    # The rest of it is an operation of its own.
    "hard_sigmoid": schema.ActivationFunctionType.RELU6,
}
# Repeated, because drawing them takes longer than all the rest. Their number is prime, so that no
# two filters are alike.
_NORMAL = np.random.default_rng(0).standard_normal(65521, np.float32)

_ACTIVATIONS = {
    "relu": "RELU",
    "relu6": "RELU6",
    "sigmoid": "LOGISTIC",
    "hard_swish": "HARD_SWISH",
}


def network_graph(outputs: Sequence[Node]) -> bytes:
    """Returns a float32 graph of batch 1 that executes the `layers` up to `outputs`, in order."""
    graph = _Graph()
    tensors = {node: graph.tensor(node.shape) for node in reachable(outputs) if node.op == "input"}
    graph.subgraph.inputs = list(tensors.values())
    sheet = cost_sheet(outputs)
    (graph_sheet,) = sheet.graphs
    executed = {layer.node: layer for layer in layers(sheet)}
    for node in graph_sheet.nodes:
        inputs = [tensors[x] for x in node.inputs]
        if node in executed and node.op not in _OPERATIONS:
            raise ConfigError(
                f"layer {node.name}: TFLite has no {node.op}; a search can time the whole "
                "detector with latency { predict { } }"
            )
        # A node that is no layer is fused into the one in front, or does nothing.
        tensors[node] = (
            _OPERATIONS[node.op](graph, executed[node], *inputs) if node in executed else inputs[0]
        )
    graph.subgraph.outputs = [tensors[node] for node in outputs]
    return graph_file.write(graph.model)


def layer_graph(layer: Layer) -> bytes:
    """Returns a graph of the layer alone, reading inputs as the network's layer does."""
    return network_graph([alone(layer)])


def alone(layer: Layer) -> Node:
    """Returns the output of a network of this one layer; its inputs are the node's, in order."""
    inputs = [
        Node("input", f"input_{i}", (), node.shape) for i, node in enumerate(layer.node.inputs)
    ]
    node = dataclasses.replace(layer.node, name="layer", inputs=tuple(inputs))
    if layer.activation == "linear":
        return node
    return Node("activation", "activation", (node,), node.shape, {"function": layer.activation})


class _Graph:
    """A TFLite model in the making. Shapes come without the batch."""

    def __init__(self) -> None:
        self.subgraph = schema.SubGraphT()
        self.subgraph.tensors, self.subgraph.operators = [], []
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.subgraphs = [self.subgraph]
        self.model.operatorCodes = []
        # The schema's empty buffer, which belongs to everything that is no constant.
        self.model.buffers = [schema.BufferT()]
        self._codes: dict[int, int] = {}

    def tensor(self, shape: Sequence[int]) -> int:
        return self._tensor((1, *shape), schema.TensorType.FLOAT32, 0)

    def weights(self, shape: Sequence[int], fan_in: int = 1) -> int:
        """Adds weights of He's deviation: activations neither vanish nor overflow at any depth."""
        values = np.float32(math.sqrt(2.0 / fan_in)) * np.resize(_NORMAL, shape)
        return self._constant(values, schema.TensorType.FLOAT32)

    def integers(self, values: Sequence[int]) -> int:
        return self._constant(np.asarray(values, np.int32), schema.TensorType.INT32)

    def operation(
        self,
        name: str,
        inputs: Sequence[int],
        shape: Sequence[int],
        options: Any = None,
        **values: Any,
    ) -> int:
        """Adds a builtin operation and returns its output.

        Args:
          name: of the operation in the schema.
          options: the schema's object, to be given `values`; None for an operation without.
        """
        code = getattr(schema.BuiltinOperator, name)
        if code not in self._codes:
            self._codes[code] = len(self.model.operatorCodes)
            operator_code = schema.OperatorCodeT()
            operator_code.builtinCode = operator_code.deprecatedBuiltinCode = code
            self.model.operatorCodes.append(operator_code)
        operator = schema.OperatorT()
        operator.opcodeIndex = self._codes[code]
        if options is not None:
            vars(options).update(values)
            kind = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        output = self.tensor(shape)
        operator.inputs, operator.outputs = list(inputs), [output]
        self.subgraph.operators.append(operator)
        return output

    def _constant(self, values: np.ndarray, kind: int) -> int:
        return self._tensor(values.shape, kind, graph_file.add_buffer(self.model, values.tobytes()))

    def _tensor(self, shape: Sequence[int], kind: int, buffer: int) -> int:
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = list(shape), kind, buffer
        tensor.name = str(len(self.subgraph.tensors))
        self.subgraph.tensors.append(tensor)
        return len(self.subgraph.tensors) - 1


def _conv2d(graph: _Graph, layer: Layer, x: int) -> int:
    node, attrs = layer.node, layer.node.attrs
    size = attrs["kernel_size"]
    height, width = (size, size) if isinstance(size, int) else size
    channels = node.inputs[0].channels // attrs["groups"]
    kernel = graph.weights((node.channels, height, width, channels), height * width * channels)
    return _convolved(graph, layer, "CONV_2D", schema.Conv2DOptionsT(), x, kernel)


def _depthwise_conv2d(graph: _Graph, layer: Layer, x: int) -> int:
    side = layer.node.attrs["kernel_size"]
    kernel = graph.weights((1, side, side, layer.node.channels), side * side)
    options = schema.DepthwiseConv2DOptionsT()
    options.depthMultiplier = 1
    return _convolved(graph, layer, "DEPTHWISE_CONV_2D", options, x, kernel)


def _convolved(graph: _Graph, layer: Layer, name: str, options: Any, x: int, kernel: int) -> int:
    shape, strides = layer.node.shape, layer.node.attrs["strides"]
    dilation = layer.node.attrs.get("dilation", 1)
    y = graph.operation(
        name,
        [x, kernel, graph.weights(shape[-1:])],
        shape,
        options,
        padding=schema.Padding.SAME,
        strideH=strides,
        strideW=strides,
        dilationHFactor=dilation,
        dilationWFactor=dilation,
        fusedActivationFunction=_FUSED[layer.activation],
    )
    return _times_weights(graph, shape, y) if layer.activation == "hard_sigmoid" else y


def _pool(name: str) -> Callable[[_Graph, Layer, int], int]:
    def pool(graph: _Graph, layer: Layer, x: int) -> int:
        size, strides = layer.node.attrs["size"], layer.node.attrs["strides"]
        return graph.operation(
            name,
            [x],
            layer.node.shape,
            schema.Pool2DOptionsT(),
            padding=schema.Padding.SAME,
            strideH=strides,
            strideW=strides,
            filterHeight=size,
            filterWidth=size,
        )

    return pool


def _over_places(name: str) -> Callable[[_Graph, Layer, int], int]:
    return lambda graph, layer, x: _reduced(graph, name, x, (1, 2), layer.node.shape)


def _reduced(graph: _Graph, name: str, x: int, axes: Sequence[int], shape: Sequence[int]) -> int:
    inputs = [x, graph.integers(axes)]
    return graph.operation(name, inputs, shape, schema.ReducerOptionsT(), keepDims=True)


def _activation(graph: _Graph, layer: Layer, x: int) -> int:
    shape, function = layer.node.shape, layer.node.attrs["function"]
    match function:
        case "swish":
            # TFLite has no operation for swish.
            gate = graph.operation("LOGISTIC", [x], shape)
            return _elementwise(graph, shape, "MUL", x, gate)
        case "hard_sigmoid":
            # relu6(x + 3) / 6; constants of any value take as long.
            y = _elementwise(graph, shape, "ADD", x, graph.weights(()), "relu6")
            return _times_weights(graph, shape, y)
    options = schema.HardSwishOptionsT() if function == "hard_swish" else None
    return graph.operation(_ACTIVATIONS[function], [x], shape, options)


def _batch_norm(graph: _Graph, layer: Layer, x: int) -> int:
    shape = layer.node.shape
    # A norm that no convolution comes before stays two operations; others are folded into weights.
    y = _elementwise(graph, shape, "MUL", x, graph.weights(shape[-1:]))
    return _elementwise(graph, shape, "ADD", y, graph.weights(shape[-1:]))


def _group_norm(graph: _Graph, layer: Layer, x: int) -> int:
    (height, width, channels), groups = layer.node.shape, layer.node.attrs["groups"]
    grouped, statistics = (height * width, groups, channels // groups), (1, groups, 1)
    # TFLite has no group norm: it is put together of other operations.
    x = _reshaped(graph, x, grouped)
    mean = _reduced(graph, "MEAN", x, (1, 3), statistics)
    options = schema.SquaredDifferenceOptionsT()
    squares = graph.operation("SQUARED_DIFFERENCE", [x, mean], grouped, options)
    variance = _reduced(graph, "MEAN", squares, (1, 3), statistics)
    variance = _elementwise(graph, statistics, "ADD", variance, graph.weights(()))
    factor = graph.operation("RSQRT", [variance], statistics)
    x = _elementwise(graph, grouped, "SUB", x, mean)
    x = _elementwise(graph, grouped, "MUL", x, factor)
    x = _reshaped(graph, x, layer.node.shape)
    x = _elementwise(graph, layer.node.shape, "MUL", x, graph.weights((channels,)))
    offset = graph.weights((channels,))
    return _elementwise(graph, layer.node.shape, "ADD", x, offset, layer.activation)


def _times_weights(graph: _Graph, shape: Sequence[int], x: int) -> int:
    return _elementwise(graph, shape, "MUL", x, graph.weights(()))


def _elementwise(
    graph: _Graph, shape: Sequence[int], name: str, x: int, y: int, activation: str = "linear"
) -> int:
    options = {"ADD": schema.AddOptionsT, "SUB": schema.SubOptionsT, "MUL": schema.MulOptionsT}[
        name
    ]()
    return graph.operation(name, [x, y], shape, options, fusedActivationFunction=_FUSED[activation])


def _concat(graph: _Graph, layer: Layer, *inputs: int) -> int:
    # After the batch's axis.
    axis = layer.node.attrs["axis"] % len(layer.node.shape) + 1
    options = schema.ConcatenationOptionsT()
    return graph.operation("CONCATENATION", inputs, layer.node.shape, options, axis=axis)


def _upsample(graph: _Graph, layer: Layer, x: int) -> int:
    options = schema.ResizeNearestNeighborOptionsT()
    inputs = [x, graph.integers(layer.node.size)]
    return graph.operation("RESIZE_NEAREST_NEIGHBOR", inputs, layer.node.shape, options)


def _reshape(graph: _Graph, layer: Layer, x: int) -> int:
    return _reshaped(graph, x, layer.node.shape)


def _reshaped(graph: _Graph, x: int, shape: Sequence[int]) -> int:
    inputs = [x, graph.integers((1, *shape))]
    return graph.operation("RESHAPE", inputs, shape, schema.ReshapeOptionsT())


_OPERATIONS: dict[str, Callable[..., int]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "activation": _activation,
    "max_pool": _pool("MAX_POOL_2D"),
    "avg_pool": _pool("AVERAGE_POOL_2D"),
    "global_avg_pool": _over_places("MEAN"),
    "global_max_pool": _over_places("REDUCE_MAX"),
    "upsample": _upsample,
    "add": lambda graph, layer, x, y: _elementwise(
        graph, layer.node.shape, "ADD", x, y, layer.activation
    ),
    "multiply": lambda graph, layer, x, y: _elementwise(
        graph, layer.node.shape, "MUL", x, y, layer.activation
    ),
    "reshape": _reshape,
    "concat": _concat,
}

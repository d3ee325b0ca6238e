"""Networks as tf_keras functional models of built-in layers."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras import layers

from mnasdet.networks.builder import Node, reachable
from mnasdet.networks.choices import Mixing, choices
from mnasdet.networks.deformable import DeformableConv2D
from mnasdet.networks.hyperparams import Initializer, stddev
from mnasdet.networks.int8_rounding import rounding
from mnasdet.networks.layers import (
    ACTIVATIONS,
    DenseConv2D,
    DropBlock,
    Dropout,
    GroupNormalization,
    MaxPooling2D,
    StandardizedConv2D,
    StandardizedDepthwiseConv2D,
    Upsample,
    stop_gradient,
)
from mnasdet.networks.mixed import MixedOperation, collapsed


def keras_model(
    outputs: Any,
    name: str = "detector",
    *,
    quantized: bool = False,
    mixing: Mixing | None = None,
    like: tf_keras.Model | None = None,
) -> tf_keras.Model:
    """Returns a functional model from the graph's inputs to `outputs`.

    Its layers compute as tf_keras' global policy says; what it gives is float32 in any case.

    Args:
      outputs: nodes by name, or in any nest of dictionaries and lists; the model gives the same
        nest of tensors.
      quantized: the model rounds as TFLite does in int8, and learns the ranges in training. It has
        the variables of the plain model, by the same names, and those of the ranges.
      mixing: how a supernet computes its choices.
      like: a plain model of the same layers for inputs of another size; both share its weights.
    """
    nodes = tf.nest.flatten(outputs)
    if choices(nodes):
        nodes = collapsed(nodes)
    inputs = {
        node: tf_keras.Input(node.shape, name=node.name)
        for node in reachable(nodes)
        if node.op == "input"
    }
    # One layer a name: nodes of one name are calls of one layer and share its weights.
    make, finish = _quantized(nodes) if quantized else (_layer, _as_it_is)
    if mixing:
        make = functools.partial(_mixed_or, make, mixing)
    if like:
        make = functools.partial(_shared_or, make, {layer.name: layer for layer in like.layers})
    tensors = replay(nodes, inputs, _made(nodes, make), finish)
    if tf_keras.mixed_precision.global_policy().compute_dtype != "float32":
        # A layer casts what it is given to its own type.
        tensors = [layers.Activation("linear", dtype="float32")(tensor) for tensor in tensors]
    return tf_keras.Model(
        list(inputs.values()), tf.nest.pack_sequence_as(outputs, tensors), name=name
    )


def keras_layers(outputs: Sequence[Node], **arguments: Any) -> dict[str, layers.Layer]:
    """Makes the layers of a graph, by name. None of them has been built.

    Args:
      arguments: of every layer's constructor, as dtype and trainable.
    """
    return _made(outputs, functools.partial(_layer, **arguments))


def _as_it_is(node: Node, tensor: Any) -> Any:
    return tensor


def replay(
    outputs: Sequence[Node],
    inputs: dict[Node, Any],
    made: dict[str, layers.Layer],
    finish: Callable[[Node, Any], Any] = _as_it_is,
) -> list[Any]:
    """Calls the layers of a graph in order.

    Args:
      inputs: the tensors of the graph's inputs, symbolic or not.
      made: the layers, by name; nodes of one name share one.
      finish: what is put after every tensor.

    Returns:
      The tensors of `outputs`.
    """
    tensors: dict[Node, Any] = {}
    for node in reachable(outputs):
        if node in inputs:
            tensor = inputs[node]
        else:
            arguments = [tensors[node_in] for node_in in node.inputs]
            # Keras layers of one input take no list.
            tensor = made[node.name](arguments if len(arguments) > 1 else arguments[0])
        tensors[node] = finish(node, tensor)
    return [tensors[node] for node in outputs]


def _made(outputs: Sequence[Node], make: Callable[[Node], layers.Layer]) -> dict[str, layers.Layer]:
    narrowest: dict[str, Node] = {}
    for node in reachable(outputs):
        if node.op != "input":
            narrowest[node.name] = min(narrowest.get(node.name, node), node, key=_columns)
    return {name: make(node) for name, node in narrowest.items()}


def _columns(node: Node) -> float:
    """Returns the width of the feature that a layer reads; infinite if it reads none."""
    shape = node.inputs[0].shape
    return shape[1] if len(shape) == 3 else math.inf


def _shared_or(
    make: Callable[[Node], layers.Layer], shared: Mapping[str, layers.Layer], node: Node
) -> layers.Layer:
    """Returns a node's layer among `shared` if that has weights, or else a new one by `make`.

    Layers without weights may know the size of what they read.
    """
    layer = shared[node.name]
    return layer if layer.weights else make(node)


def _mixed_or(make: Callable[[Node], layers.Layer], mixing: Mixing, node: Node) -> layers.Layer:
    """Makes the layer of a choice, with those of its branches, or another node's by `make`."""
    if node.op != "mixed":
        return make(node)
    own = {one.name: make(one) for branch in node.attrs["branches"] for one in branch.nodes}
    return MixedOperation(node, own, mixing, name=node.name)


def _layer(node: Node, **arguments: Any) -> layers.Layer:
    if _columns(node) == 1 and node.attrs.get("kernel_size", 1) != 1:
        # In bfloat16, oneDNN's gradients of such a convolution read beyond the only column.
        arguments = {"dtype": "float32"} | arguments
    return _LAYERS[node.op](node, name=node.name, **arguments)


def _quantized(
    outputs: Sequence[Node],
) -> tuple[Callable[[Node], layers.Layer], Callable[[Node, Any], Any]]:
    """Returns how a quantised model makes a layer, and what it puts after it."""
    # tfmot takes seconds to load.
    from mnasdet.networks import fake_quantization

    plan = rounding(outputs)
    # Every use of a shared layer has a range of its own.
    uses: Counter[str] = Counter()
    names = {}
    for node in plan.nodes:
        uses[node.name] += 1
        names[node] = f"{node.name}/range" + (f"_{uses[node.name]}" if uses[node.name] > 1 else "")

    def make(node: Node) -> layers.Layer:
        return fake_quantization.rounded_layer(node, _layer(node), node in plan.lone_batch_norms)

    def finish(node: Node, tensor: Any) -> Any:
        if node not in names:
            return tensor
        return fake_quantization.rounded_output(node, names[node])(tensor)

    return make, finish


def _conv2d(node: Node, **common: Any) -> layers.Layer:
    attrs = node.attrs
    kind = StandardizedConv2D if attrs.get("standardized") else layers.Conv2D
    if attrs.get("dense"):
        kind = DenseConv2D
    return kind(
        attrs["filters"],
        attrs["kernel_size"],
        strides=attrs["strides"],
        dilation_rate=attrs.get("dilation", 1),
        groups=attrs["groups"],
        padding="same",
        use_bias=attrs["use_bias"],
        bias_initializer=tf_keras.initializers.Constant(attrs["bias"]),
        kernel_initializer=keras_initializer(
            attrs["initializer"],
            attrs["kernel_size"],
            node.inputs[0].channels // attrs["groups"],
            attrs["filters"],
        ),
        kernel_regularizer=keras_regularizer(attrs["l2"]),
        **common,
    )


def _depthwise_conv2d(node: Node, **common: Any) -> layers.Layer:
    attrs = node.attrs
    kind = StandardizedDepthwiseConv2D if attrs.get("standardized") else layers.DepthwiseConv2D
    return kind(
        attrs["kernel_size"],
        strides=attrs["strides"],
        dilation_rate=attrs.get("dilation", 1),
        padding="same",
        use_bias=attrs["use_bias"],
        depthwise_initializer=keras_initializer(attrs["initializer"], attrs["kernel_size"], 1, 1),
        depthwise_regularizer=keras_regularizer(attrs["l2"]),
        **common,
    )


def _deformable_conv2d(node: Node, **common: Any) -> layers.Layer:
    attrs = node.attrs
    size, filters = attrs["kernel_size"], attrs["filters"]
    return DeformableConv2D(
        filters,
        size,
        attrs["deformable_groups"],
        kernel_initializer=keras_initializer(
            attrs["initializer"], size, node.inputs[0].channels, filters
        ),
        kernel_regularizer=keras_regularizer(attrs["l2"]),
        **common,
    )


_LAYERS: dict[str, Callable[..., layers.Layer]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "deformable_conv2d": _deformable_conv2d,
    "batch_norm": lambda node, **common: layers.BatchNormalization(**node.attrs, **common),
    "group_norm": lambda node, **common: GroupNormalization(**node.attrs, **common),
    "activation": lambda node, **common: _activation(node.attrs["function"], **common),
    "stop_gradient": lambda node, **common: layers.Activation(stop_gradient, **common),
    "dropout": lambda node, **common: Dropout(node.attrs["rate"], **common),
    "drop_block": lambda node, **common: DropBlock(**node.attrs, **common),
    "max_pool": lambda node, **common: MaxPooling2D(
        node.attrs["size"], node.attrs["strides"], padding="same", **common
    ),
    "avg_pool": lambda node, **common: layers.AveragePooling2D(
        node.attrs["size"], node.attrs["strides"], padding="same", **common
    ),
    "global_avg_pool": lambda node, **common: layers.GlobalAveragePooling2D(
        keepdims=True, **common
    ),
    "global_max_pool": lambda node, **common: layers.GlobalMaxPooling2D(keepdims=True, **common),
    "upsample": lambda node, **common: Upsample(node.shape[:2], **common),
    "add": lambda node, **common: layers.Add(**common),
    "multiply": lambda node, **common: layers.Multiply(**common),
    "reshape": lambda node, **common: layers.Reshape(node.shape, **common),
    "concat": lambda node, **common: layers.Concatenate(
        # Keras counts the batch.
        axis=node.attrs["axis"] + (node.attrs["axis"] >= 0),
        **common,
    ),
}


def _activation(function: str, **common: Any) -> layers.Layer:
    match function:
        case "relu6":
            return layers.ReLU(max_value=6.0, **common)
        case "hard_swish" | "hard_sigmoid" | "swish":
            return layers.Activation(ACTIVATIONS[function], **common)
    return layers.Activation(function, **common)


def keras_initializer(
    initializer: Initializer,
    kernel_size: int | tuple[int, int],
    channels_in: int,
    channels_out: int,
):
    """Returns Keras' initialiser with the deviation that was asked for.

    Keras' own variance scaling takes a depthwise kernel's channels for its fan, so the deviation is
    worked out here.
    """
    deviation = stddev(initializer, kernel_size, channels_in, channels_out)
    match initializer.distribution:
        case "normal":
            return tf_keras.initializers.RandomNormal(stddev=deviation)
        case "uniform":
            # A uniform distribution within ±limit has the deviation limit / √3.
            limit = math.sqrt(3.0) * deviation
            return tf_keras.initializers.RandomUniform(-limit, limit)
    if not initializer.stddev:
        # Cutting at two deviations narrows the distribution: make up for it, as Keras does. A
        # deviation that a config states is meant before the cut, as in slim.
        deviation /= 0.87962566103423978
    return tf_keras.initializers.TruncatedNormal(stddev=deviation)


def keras_regularizer(l2: float):
    return tf_keras.regularizers.L2(l2) if l2 else None

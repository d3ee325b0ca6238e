"""Networks as tf_keras functional models of built-in layers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from tf_keras import layers

from mnasdet.networks.builder import Builder, Node, reachable
from mnasdet.networks.hyperparams import Initializer, stddev
from mnasdet.networks.int8_rounding import rounding
from mnasdet.networks.layers import (
    ACTIVATIONS,
    DropBlock,
    GroupNormalization,
    StandardizedConv2D,
    StandardizedDepthwiseConv2D,
    Upsample,
)


def keras_model(outputs: Any, name: str = "detector", *, quantized: bool = False) -> tf_keras.Model:
    """Returns a functional model from the graph's inputs to `outputs`.

    Args:
      outputs: nodes by name, or in any nest of dictionaries and lists; the model gives the same
        nest of tensors.
      quantized: the model rounds as TFLite does in int8, and learns the ranges in training. It has
        the variables of the plain model, by the same names, and those of the ranges.
    """
    nodes = tf.nest.flatten(outputs)
    inputs = {
        node: tf_keras.Input(node.shape, name=node.name)
        for node in reachable(nodes)
        if node.op == "input"
    }
    tensors = keras_tensors(nodes, inputs, quantized=quantized)
    return tf_keras.Model(
        list(inputs.values()), tf.nest.pack_sequence_as(outputs, tensors), name=name
    )


def apply(network: Callable, tensors: Sequence[Any], **arguments: Any) -> list[Any]:
    """Runs a network function on Keras tensors of any model: `apply(mnasfpn, [c3, c4, c5], …)`.

    Args:
      network: a function (Builder, nodes, **arguments) -> nodes.
      tensors: symbolic Keras tensors, [batch, height, width, channels], sizes known.

    Returns:
      The network's outputs as Keras tensors.
    """
    b = Builder()
    nodes = [b.input(x.shape[1:], f"input_{i}") for i, x in enumerate(tensors)]
    outputs = network(b, nodes, **arguments)
    return keras_tensors(outputs, dict(zip(nodes, tensors, strict=True)))


def keras_tensors(
    outputs: Sequence[Node], inputs: dict[Node, Any], *, quantized: bool = False
) -> list[Any]:
    """The Keras tensors of `outputs`, given those of the graph's inputs; `quantized` as for
    `keras_model`."""
    make, finish = _quantized(outputs) if quantized else (_layer, lambda node, tensor: tensor)
    tensors: dict[Node, Any] = {}
    made: dict[str, layers.Layer] = {}
    for node in reachable(outputs):
        if node in inputs:
            tensors[node] = finish(node, inputs[node])
            continue
        if node.name not in made:
            made[node.name] = make(node)
        arguments = [tensors[node_in] for node_in in node.inputs]
        tensor = made[node.name](arguments if len(arguments) > 1 else arguments[0])
        tensors[node] = finish(node, tensor)
    return [tensors[node] for node in outputs]


def _layer(node: Node) -> layers.Layer:
    return _LAYERS[node.op](node, node.name)


def _quantized(
    outputs: Sequence[Node],
) -> tuple[Callable[[Node], layers.Layer], Callable[[Node, Any], Any]]:
    """How a quantised model makes a layer, and what it puts behind it."""
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


def _conv2d(node: Node, name: str) -> layers.Layer:
    attrs = node.attrs
    kind = StandardizedConv2D if attrs.get("standardized") else layers.Conv2D
    return kind(
        attrs["filters"],
        attrs["kernel_size"],
        strides=attrs["strides"],
        dilation_rate=attrs.get("dilation", 1),
        groups=attrs["groups"],
        padding="same",
        use_bias=attrs["use_bias"],
        bias_initializer=tf_keras.initializers.Constant(attrs["bias"]),
        kernel_initializer=_initializer(
            attrs["initializer"],
            attrs["kernel_size"],
            node.inputs[0].channels // attrs["groups"],
            attrs["filters"],
        ),
        kernel_regularizer=_regularizer(attrs["l2"]),
        name=name,
    )


def _depthwise_conv2d(node: Node, name: str) -> layers.Layer:
    attrs = node.attrs
    kind = StandardizedDepthwiseConv2D if attrs.get("standardized") else layers.DepthwiseConv2D
    return kind(
        attrs["kernel_size"],
        strides=attrs["strides"],
        dilation_rate=attrs.get("dilation", 1),
        padding="same",
        use_bias=attrs["use_bias"],
        depthwise_initializer=_initializer(attrs["initializer"], attrs["kernel_size"], 1, 1),
        depthwise_regularizer=_regularizer(attrs["l2"]),
        name=name,
    )


_LAYERS: dict[str, Callable[..., layers.Layer]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "batch_norm": lambda node, name: layers.BatchNormalization(**node.attrs, name=name),
    "group_norm": lambda node, name: GroupNormalization(**node.attrs, name=name),
    "activation": lambda node, name: _activation(node.attrs["function"], name),
    "dropout": lambda node, name: layers.Dropout(node.attrs["rate"], name=name),
    "drop_block": lambda node, name: DropBlock(**node.attrs, name=name),
    "max_pool": lambda node, name: layers.MaxPooling2D(
        node.attrs["size"], node.attrs["strides"], padding="same", name=name
    ),
    "avg_pool": lambda node, name: layers.AveragePooling2D(
        node.attrs["size"], node.attrs["strides"], padding="same", name=name
    ),
    "global_avg_pool": lambda node, name: layers.GlobalAveragePooling2D(keepdims=True, name=name),
    "global_max_pool": lambda node, name: layers.GlobalMaxPooling2D(keepdims=True, name=name),
    "upsample": lambda node, name: Upsample(node.shape[:2], name=name),
    "add": lambda node, name: layers.Add(name=name),
    "multiply": lambda node, name: layers.Multiply(name=name),
    "reshape": lambda node, name: layers.Reshape(node.shape, name=name),
    "concat": lambda node, name: layers.Concatenate(
        # Keras counts the batch.
        axis=node.attrs["axis"] + (node.attrs["axis"] >= 0),
        name=name,
    ),
}


def _activation(function: str, name: str) -> layers.Layer:
    match function:
        case "relu6":
            return layers.ReLU(max_value=6.0, name=name)
        case "hard_swish" | "hard_sigmoid" | "swish":
            return layers.Activation(ACTIVATIONS[function], name=name)
    return layers.Activation(function, name=name)


def _initializer(
    initializer: Initializer,
    kernel_size: int | tuple[int, int],
    channels_in: int,
    channels_out: int,
):
    """Keras' own variance scaling takes a depthwise kernel's channels for its fan, so the
    deviation is worked out here."""
    deviation = stddev(initializer, kernel_size, channels_in, channels_out)
    match initializer.distribution:
        case "normal":
            return tf_keras.initializers.RandomNormal(stddev=deviation)
        case "uniform":
            limit = math.sqrt(3.0) * deviation
            return tf_keras.initializers.RandomUniform(-limit, limit)
    if not initializer.stddev:
        # Cutting at two deviations narrows the distribution: make up for it, as Keras does.
        deviation /= 0.87962566103423978
    return tf_keras.initializers.TruncatedNormal(stddev=deviation)


def _regularizer(l2: float):
    return tf_keras.regularizers.L2(l2) if l2 else None

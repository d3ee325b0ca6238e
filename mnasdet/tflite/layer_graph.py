"""Single layers as TFLite graphs, made as the layers of whole networks are."""

from __future__ import annotations

import dataclasses

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mnasdet.networks.builder import Node
from mnasdet.networks.keras_builder import keras_model
from mnasdet.tflite.convert import quiet
from mnasdet.tflite.latency_table import Layer

_INPUT = Node("input", "", (), (1, 1, 1))

# What the time of every other graph has in it as well.
NOTHING = Layer(Node("activation", "nothing", (_INPUT,), (1, 1, 1), {"function": "relu6"}))


def graph(layer: Layer) -> bytes:
    """The layer alone, weights random; its inputs are those of the node, in order."""
    inputs = [
        Node("input", f"input_{i}", (), node.shape) for i, node in enumerate(layer.node.inputs)
    ]
    model = keras_model({"output": _alone(layer, inputs)})
    if layer.node.op == "batch_norm":
        _randomize(model)
    specs = [tf.TensorSpec((1, *node.shape), tf.float32) for node in inputs]
    traced = tf.function(
        lambda *tensors: model(list(tensors), training=False)["output"], autograph=False
    ).get_concrete_function(*specs)
    with quiet():
        frozen = convert_variables_to_constants_v2(traced)
        # Without a signature: half the time of `convert`.
        return tf.lite.TFLiteConverter([frozen]).convert()


def _alone(layer: Layer, inputs: list[Node]) -> Node:
    """The layer's node and its activation, reading `inputs`. Its batch normalisation changes but
    the numbers in it."""
    node = dataclasses.replace(layer.node, name="layer", inputs=tuple(inputs))
    if layer.activation == "linear":
        return node
    return Node("activation", "activation", (node,), node.shape, {"function": layer.activation})


def _randomize(model: tf_keras.Model) -> None:
    """The converter leaves out a sum with the zeros that a normalisation begins with."""
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))

"""Keras models to TFLite."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import numpy as np
import tensorflow as tf
import tf_keras
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mnasdet.errors import UserError
from mnasdet.tflite import graph_file, shared_biases

QUANTIZATIONS = ("none", "fp16", "dynamic", "int8", "int16x8")

# Activations are quantised as well here, so these need to know their ranges.
FULL_QUANTIZATIONS = ("int8", "int16x8")

INPUT_TYPES = ("float32", "uint8")


def convert(
    model: tf_keras.Model,
    quantization: str = "none",
    *,
    calibration_images: np.ndarray | None = None,
    input_type: str = "float32",
) -> bytes:
    """Returns a TFLite graph of batch 1 with one signature, "serving_default".

    Its outputs are in the order of their names, which are those of the signature.

    Args:
      model: of one input, a picture in [-1, 1] where `input_type` is uint8, and a dictionary of
        outputs.
      quantization: of the weights: none, fp16, or dynamic (int8, activations in float32); of
        weights, channel by channel, and activations: int8, or int16x8 (activations of 16 bits). The
        outputs are float32 always.
      calibration_images: [images, height, width, 3] float32 in [-1, 1], from which int8 and int16x8
        take the ranges of activations. A model that was trained with quantisation, for int8 alone,
        has ranges of its own.
      input_type: uint8 takes pixels, 0 to 255. Quantised to int8, the input's own scale makes
        [-1, 1] of them; otherwise the graph begins with that. Not for int16x8.

    Raises:
      UserError: nothing says what the ranges of activations are; the model was trained for another
        quantisation; int16x8 of uint8.
    """
    if is_quantized(model) and quantization != "int8":
        raise UserError(
            f"quantization is {quantization}; a detector that was trained with graph_rewriter is "
            "for int8 alone"
        )
    if input_type == "uint8" and quantization == "int16x8":
        raise UserError("quantization int16x8 takes images as float32; input_type is uint8")
    (image,) = model.inputs
    # An int8 input already has a scale: the normalisation is free there.
    normalises = input_type == "uint8" and quantization != "int8"
    spec = tf.TensorSpec(
        (1, *image.shape[1:]), tf.uint8 if normalises else image.dtype, name=image.name
    )

    def network(x):
        if normalises:
            x = tf.cast(x, tf.float32) * (2.0 / 255.0) - 1.0
        return model(x, training=False)

    traced = tf.function(network).get_concrete_function(spec)
    # Converting with variables takes many times as long and gives the same graph, and half a second
    # longer with a signature.
    with quiet():
        frozen = convert_variables_to_constants_v2(traced)
    converter = tf.lite.TFLiteConverter([frozen])
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization in FULL_QUANTIZATIONS and not is_quantized(model):
        _calibrate(converter, quantization, calibration_images)
    with quiet():
        graph = graph_file.read(converter.convert())
    # Freezing drops the names of the outputs but keeps their order, tf.nest's.
    graph_file.sign(graph, image.name, sorted(traced.structured_outputs))
    if quantization == "int16x8":
        shared_biases.separate(graph)
    if input_type == "uint8" and not normalises:
        _take_pixels(graph)
    return graph_file.write(graph)


def _calibrate(converter, quantization: str, images: np.ndarray | None) -> None:
    """Makes the converter find the ranges of all activations, and refuse float32 operations."""
    if images is None or not len(images):
        raise UserError(
            f"quantization {quantization} needs calibration images, or a detector that was trained "
            "with graph_rewriter"
        )
    converter.representative_dataset = lambda: ([image[None]] for image in images)
    ops = tf.lite.OpsSet
    converter.target_spec.supported_ops = [
        ops.TFLITE_BUILTINS_INT8
        if quantization == "int8"
        else ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
    ]


def _take_pixels(graph: graph_file.schema.ModelT) -> None:
    """Makes the float32 input of an int8 graph uint8.

    The operation that quantised the picture goes from pixels to the network's int8 then. The
    converter's own way depends on the calibration images: pixels would be off where these have
    no black or no white.
    """
    subgraph = graph.subgraphs[0]
    tensor = subgraph.tensors[subgraph.inputs[0]]
    tensor.type = graph_file.schema.TensorType.UINT8
    # -1 lies between two integers; the converter takes this one of the two zero points.
    tensor.quantization = graph_file.quantization(scale=2.0 / 255.0, zero_point=127)


def is_quantized(model: tf_keras.Model) -> bool:
    """Returns whether the model rounds to int8 itself, as `keras_model(…, quantized=True)` does."""
    # By the name of tfmot's class: tfmot takes seconds to load.
    return any(type(part).__name__ == "QuantizeLayer" for part in model.submodules)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the messages of the converter's C++ code off standard error.

    It writes them past every log level; errors come as exceptions.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

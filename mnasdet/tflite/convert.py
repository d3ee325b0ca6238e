"""Keras models to TFLite."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import tensorflow as tf
import tf_keras
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mnasdet.errors import UserError
from mnasdet.tflite.sharing import share_vectors

QUANTIZATIONS = ("none", "fp16", "dynamic", "int8")


def convert(model: tf_keras.Model, quantization: str = "none") -> bytes:
    """A TFLite graph of batch 1 with one signature, "serving_default".

    Args:
      model: of one input and a dictionary of outputs; the signature has their names.
      quantization: of the weights: none, fp16, or dynamic (int8, activations in float32); of all:
        int8, for a model whose ranges were trained.

    Raises:
      UserError: the model was not trained for this quantisation.
    """
    if is_quantized(model) != (quantization == "int8"):
        raise UserError(
            f'quantization is "{quantization}"; '
            + (
                'a detector that was trained with graph_rewriter is for "int8" alone'
                if is_quantized(model)
                else '"int8" needs a detector that was trained with graph_rewriter'
            )
        )
    (image,) = model.inputs
    name = image.name
    spec = tf.TensorSpec((1, *image.shape[1:]), image.dtype, name=name)
    traced = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    # Converting with variables takes many times as long and gives the same graph.
    with quiet():
        frozen = convert_variables_to_constants_v2(traced)
    # Freezing drops the names of the outputs but keeps their order, tf.nest's: a second function
    # gives the names back.
    names = sorted(traced.structured_outputs)

    def named(x):
        return dict(zip(names, frozen(x), strict=True))

    function = tf.function(named, input_signature=[spec]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    with quiet():
        graph = converter.convert()
    return share_vectors(graph) if quantization == "int8" else graph


def is_quantized(model: tf_keras.Model) -> bool:
    """Whether the model rounds to int8 itself, as `keras_model(…, quantized=True)` does."""
    # By the name of tfmot's class: tfmot takes seconds to load.
    return any(type(layer).__name__ == "QuantizeLayer" for layer in model.layers)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps off standard error what the converter's C++ code writes there past every log level;
    errors come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

"""Biases of convolutions that share their weights, in int16x8 graphs."""

from __future__ import annotations

import copy

import numpy as np

from mnasdet.tflite import graph_file
from mnasdet.tflite.graph_file import schema

_WITH_BIAS = {
    schema.BuiltinOperator.CONV_2D,
    schema.BuiltinOperator.DEPTHWISE_CONV_2D,
    schema.BuiltinOperator.FULLY_CONNECTED,
}


def separate(model: schema.ModelT) -> None:
    """Gives every operation a bias of its own scale, the input's times the weights'.

    TensorFlow 2.20's quantisation to 16 bits leaves operations that share a bias, such as those of
    a predictor on several levels, the one that fits the scale of one input: the scores of all other
    levels are wrong.
    """
    subgraph = model.subgraphs[0]
    for operator in subgraph.operators:
        code = model.operatorCodes[operator.opcodeIndex].builtinCode
        if code in _WITH_BIAS and len(operator.inputs) > 2 and operator.inputs[2] >= 0:
            image, weights, bias = (subgraph.tensors[index] for index in operator.inputs[:3])
            scale = image.quantization.scale * weights.quantization.scale
            # A bias that only one operation uses fits already, but for rounding.
            if not np.allclose(bias.quantization.scale, scale, rtol=1e-3, atol=0):
                subgraph.tensors.append(_rescaled(model, bias, scale))
                inputs = list(operator.inputs)
                inputs[2] = len(subgraph.tensors) - 1
                operator.inputs = inputs


def _rescaled(model: schema.ModelT, bias: schema.TensorT, scale: np.ndarray) -> schema.TensorT:
    steps = np.asarray(model.buffers[bias.buffer].data).view(np.int64)
    values = steps * bias.quantization.scale.astype(np.float64)
    rescaled = copy.copy(bias)
    rescaled.quantization = copy.copy(bias.quantization)
    rescaled.quantization.scale = scale.astype(np.float32)
    rescaled.buffer = graph_file.add_buffer(
        model, np.rint(values / scale).astype(np.int64).tobytes()
    )
    return rescaled

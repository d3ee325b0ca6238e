"""Keras layers that round as TFLite's int8 kernels do, out of tfmot's parts.

tfmot's own rewriting (quantize_model) refuses a batch normalisation after a shared convolution and
layers that it does not know, so `keras_builder` puts its parts where `int8_rounding` says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tf_keras
from tensorflow_model_optimization.python.core.quantization.keras.quantize_layer import (
    QuantizeLayer,
)
from tensorflow_model_optimization.python.core.quantization.keras.quantize_wrapper import (
    QuantizeWrapperV2,
)
from tensorflow_model_optimization.quantization.keras import QuantizeConfig, quantizers

from mnasdet.networks.builder import Node
from mnasdet.networks.int8_rounding import CONVOLUTIONS, fixed_range

# Share of the old range that a training step keeps: a range follows training within some hundred
# steps, and an odd batch moves it little.
_DECAY = 0.99

# The narrowest range, so that there is a scale where all values are zero.
_NARROWEST = 1e-3

# The smallest largest weight of a channel, for the same reason.
_SMALLEST_WEIGHT = 1e-5

# Read while a training step is traced, in whatever thread, so it is a global: Keras decides with
# which arguments a layer is called.
_observing = False


@contextlib.contextmanager
def observing() -> Iterator[None]:
    """Makes training steps that are traced inside observe the ranges and round nothing."""
    global _observing
    _observing = True
    try:
        yield
    finally:
        _observing = False


class MovingRange(quantizers.Quantizer):
    """Rounds activations within the moving average of their batches' ranges.

    tfmot's own average starts at (-6, 6) and takes thousands of steps from there; this one starts
    with the first batch.
    """

    def build(self, tensor_shape, name, layer) -> dict[str, tf.Variable]:
        return {end: self._end(layer, end) for end in ("min", "max")}

    @staticmethod
    def _end(layer: tf_keras.layers.Layer, name: str) -> tf.Variable:
        # Averaged over replicas, as the moving averages of a batch normalisation.
        return layer.add_weight(
            name,
            shape=(),
            initializer="zeros",
            trainable=False,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.MEAN,
        )

    def __call__(self, inputs, training, weights, **kwargs):
        low, high = weights["min"], weights["max"]
        if training:
            low, high = _moved(tf.stop_gradient(inputs), low, high)
            if _observing:
                return inputs
        # The gradient passes where a value is inside the range (straight-through); the ends get
        # none.
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high)

    def get_config(self) -> dict[str, Any]:
        return {}


def _moved(x: tf.Tensor, low: tf.Variable, high: tf.Variable) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the range after a batch, and stores it; zero is always in it."""
    old_low, old_high = tf.convert_to_tensor(low), tf.convert_to_tensor(high)
    batch_low = tf.minimum(tf.reduce_min(x), 0.0)
    batch_high = tf.maximum(tf.reduce_max(x), batch_low + _NARROWEST)
    batch_high = tf.maximum(batch_high, 0.0)
    # Equal ends are those of a new variable: the first batch counts whole.
    kept = tf.where(old_low == old_high, 0.0, _DECAY)
    new_low = kept * old_low + (1 - kept) * batch_low
    new_high = kept * old_high + (1 - kept) * batch_high
    low.assign(new_low)
    high.assign(new_high)
    return new_low, new_high


class KnownRange(quantizers.FixedQuantizer):
    """Rounds activations whose range is known ahead."""

    def __init__(self, low: float, high: float):
        super().__init__(num_bits=8, init_min=low, init_max=high, narrow_range=False)

    def __call__(self, inputs, training, weights, **kwargs):
        if training and _observing:
            return inputs
        return super().__call__(inputs, training, weights, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return {"low": self.init_min, "high": self.init_max}


class KernelRange(quantizers.Quantizer):
    """Rounds a kernel to -127 … 127, every output channel on a scale of its own.

    There is nothing to be learnt or stored: the scale is that of the largest weight. A factor on a
    channel, as of a batch normalisation, does not change what is rounded to what.
    """

    def build(self, tensor_shape, name, layer) -> dict[str, tf.Variable]:
        return {}

    def __call__(self, inputs, training, weights, **kwargs):
        if training and _observing:
            return inputs
        # A depthwise kernel is (height, width, channels, 1): its channels are not in the last axis.
        *area, channels, multiplier = inputs.shape
        last = (*area, 1, channels) if multiplier == 1 else inputs.shape
        kernel = tf.reshape(inputs, last)
        largest = tf.reduce_max(tf.abs(tf.stop_gradient(kernel)), axis=[0, 1, 2])
        largest = tf.maximum(largest, _SMALLEST_WEIGHT)
        rounded = tf.quantization.fake_quant_with_min_max_vars_per_channel(
            kernel, -largest, largest, narrow_range=True
        )
        return tf.reshape(rounded, inputs.shape)

    def get_config(self) -> dict[str, Any]:
        return {}


class KernelConfig(QuantizeConfig):
    """Rounds only the kernel of a convolution; the layer after it rounds its output."""

    def __init__(self, attribute: str):
        """Takes the name of the layer's kernel, "kernel" or "depthwise_kernel"."""
        self.attribute = attribute

    def get_weights_and_quantizers(self, layer):
        return [(getattr(layer, self.attribute), KernelRange())]

    def set_quantize_weights(self, layer, quantize_weights):
        setattr(layer, self.attribute, quantize_weights[0])

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        return []

    def get_config(self) -> dict[str, Any]:
        return {"attribute": self.attribute}


class LoneBatchNorm(tf_keras.layers.BatchNormalization):
    """A batch normalisation that follows no convolution of its own.

    TFLite rounds it in one kernel as a 1x1 depthwise convolution, with a factor and an offset.
    """

    def call(self, inputs, training=None):
        if training is not False:
            return super().call(inputs, training=training)
        factor = tf.math.rsqrt(self.moving_variance + self.epsilon)
        factor = factor * self.gamma if self.scale else factor
        offset = -self.moving_mean * factor
        offset = offset + self.beta if self.center else offset
        kernel = tf.reshape(factor, (1, 1, -1, 1))
        # As a convolution, because the converter folds the offset into its int32 bias; a
        # multiplication and an addition would be two kernels that round twice.
        return tf.nn.depthwise_conv2d(inputs, kernel, (1, 1, 1, 1), "SAME") + offset


def hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """Computes relu6(x + 3) / 6, rounded after the first kernel of two."""
    x = tf.nn.relu6(x + 3.0)
    if _observing:
        return x * (1 / 6)
    return tf.quantization.fake_quant_with_min_max_args(x, 0.0, 6.0) * (1 / 6)


def rounded_layer(
    node: Node, layer: tf_keras.layers.Layer, lone_batch_norm: bool
) -> tf_keras.layers.Layer:
    """Returns the layer with its weights, or what goes on inside it, rounded.

    The variables keep their names, so that a plain checkpoint can be loaded.
    """
    if node.op in CONVOLUTIONS:
        attribute = "kernel" if node.op == "conv2d" else "depthwise_kernel"
        return QuantizeWrapperV2(layer, KernelConfig(attribute), name=layer.name)
    if lone_batch_norm:
        return LoneBatchNorm.from_config(layer.get_config())
    if node.op == "activation" and node.attrs["function"] == "hard_sigmoid":
        return tf_keras.layers.Activation(hard_sigmoid, name=layer.name)
    return layer


def rounded_output(node: Node, name: str) -> tf_keras.layers.Layer:
    """Returns the layer that rounds the output of another."""
    if known := fixed_range(node):
        return QuantizeLayer(KnownRange(*known), name=name)
    return QuantizeLayer(MovingRange(), name=name)

"""The Keras layers of our own: only what tf_keras has no layer for."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
import tf_keras
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext

from mnasdet.networks import random_draws


@tf_keras.utils.register_keras_serializable("mnasdet")
class Upsample(tf_keras.layers.Layer):
    """Nearest neighbour resizing to a fixed (height, width).

    tf_keras' UpSampling2D has a gradient that does not compile under XLA. Here, for whole factors,
    the gradient is a sum over blocks, which does.
    """

    def __init__(self, size: tuple[int, int], **kwargs):
        super().__init__(**kwargs)
        self.size = (size[0], size[1])

    def call(self, x):
        height, width = x.shape[1:3]
        if self.size[0] % height or self.size[1] % width:
            # Neighbours that are no whole blocks have no gradient as a pool; TensorFlow's own does.
            return tf.raw_ops.ResizeNearestNeighbor(images=x, size=self.size)
        block = (self.size[0] // height, self.size[1] // width)
        return _upsample(x, self.size, block)

    def get_config(self):
        return super().get_config() | {"size": self.size}


def _upsample(x: tf.Tensor, size: tuple[int, int], block: tuple[int, int]) -> tf.Tensor:
    @tf.custom_gradient
    def upsample(x):
        def gradient(dy):
            # An average times its number of values: TensorFlow has no pool that sums.
            return tf.nn.avg_pool2d(dy, block, block, "VALID") * float(block[0] * block[1])

        return tf.raw_ops.ResizeNearestNeighbor(images=x, size=size), gradient

    return upsample(x)


@tf_keras.utils.register_keras_serializable("mnasdet")
class MaxPooling2D(tf_keras.layers.MaxPooling2D):
    """tf_keras' own max pooling, with another gradient under XLA.

    XLA has no deterministic implementation of TensorFlow's gradient, and refuses it where
    operations have to be deterministic. Elsewhere TensorFlow's is the faster one.
    """

    def call(self, x):
        if not GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
            return super().call(x)
        return _max_pool(x, self.pool_size, self.strides, self.padding.upper())


def _max_pool(x: tf.Tensor, size: Sequence[int], strides: Sequence[int], padding: str) -> tf.Tensor:
    @tf.custom_gradient
    def max_pool(x):
        def gradient(dy):
            # Computed anew: the maxima of all places would be kept from the forward pass.
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = _maximum_of_places(x, size, strides, padding)
            return tape.gradient(y, x, dy)

        return tf.nn.max_pool2d(x, size, strides, padding), gradient

    return max_pool(x)


def _maximum_of_places(
    x: tf.Tensor, size: Sequence[int], strides: Sequence[int], padding: str
) -> tf.Tensor:
    """Computes max pooling as the maximum of one slice for each place in the window.

    Of equal values the first one, by row and column, gets the gradient, as of TensorFlow's own:
    `tf.maximum` hands it to its first argument.
    """
    margins, lengths = [], []
    for length, window, stride in zip(x.shape[1:3], size, strides, strict=True):
        missing = max((-(-length // stride) - 1) * stride + window - length, 0)
        missing = missing if padding == "SAME" else 0
        margins.append([missing // 2, missing - missing // 2])
        lengths.append(length + missing - window + 1)
    padded = tf.pad(x, [[0, 0], *margins, [0, 0]], constant_values=x.dtype.min)
    places = [
        padded[:, row : row + lengths[0] : strides[0], column : column + lengths[1] : strides[1]]
        for row in range(size[0])
        for column in range(size[1])
    ]
    return functools.reduce(tf.maximum, places)


@tf_keras.utils.register_keras_serializable("mnasdet")
class Dropout(tf_keras.layers.Dropout):
    """tf_keras' own dropout, with draws that a training which goes on makes as it would have."""

    def call(self, inputs, training=None):
        if not training:
            return inputs
        kept = random_draws.uniform(tf.shape(inputs)) >= self.rate
        return tf.where(kept, inputs / (1 - self.rate), tf.zeros_like(inputs))


@tf_keras.utils.register_keras_serializable("mnasdet")
class DropBlock(tf_keras.layers.Layer):
    """Drops square blocks of all channels in training (Ghiasi et al., "DropBlock", 2018).

    A block starts only where it fits whole. What is kept is scaled so that the mean stays.
    """

    def __init__(self, keep_probability: float, block_size: int, **kwargs):
        super().__init__(**kwargs)
        self.keep_probability = keep_probability
        self.block_size = block_size

    def call(self, x, training=None):
        if not training:
            return x
        height, width = x.shape[1:3]
        side = min(self.block_size, height, width)
        seeds = (height - side + 1, width - side + 1)
        # The chance that a block starts at a place, so that 1 - keep_probability of all units are
        # dropped on average; fewer places can start a block than there are units (equation 1).
        rate = (1 - self.keep_probability) * height * width / side**2 / (seeds[0] * seeds[1])
        starts = tf.cast(random_draws.uniform((tf.shape(x)[0], *seeds, 1)) < rate, x.dtype)
        # A block covers its start and the pixels to the right of it and below.
        starts = tf.pad(starts, [[0, 0], [side - 1, side - 1], [side - 1, side - 1], [0, 0]])
        kept = 1 - tf.nn.max_pool2d(starts, side, 1, "VALID")
        share = tf.reduce_mean(tf.cast(kept, tf.float32))
        # A small feature may be dropped whole: 1e-3 keeps the division finite.
        return x * kept / tf.cast(tf.maximum(share, 1e-3), x.dtype)

    def get_config(self):
        own = {"keep_probability": self.keep_probability, "block_size": self.block_size}
        return super().get_config() | own


@tf_keras.utils.register_keras_serializable("mnasdet")
class GroupNormalization(tf_keras.layers.GroupNormalization):
    """tf_keras' own group normalisation, of features whose size is known, in fewer operations.

    tf_keras weighs every value by a mask of ones, which an exported graph would go on to do.
    Statistics of 16-bit numbers are float32, as those of a batch normalisation.
    """

    def call(self, x):
        height, width, channels = x.shape[1:]
        grouped = tf.reshape(
            tf.cast(x, tf.float32), (-1, height * width, self.groups, channels // self.groups)
        )
        mean = tf.reduce_mean(grouped, (1, 3), keepdims=True)
        variance = tf.reduce_mean(tf.math.squared_difference(grouped, mean), (1, 3), keepdims=True)
        normalized = (grouped - mean) * tf.math.rsqrt(variance + self.epsilon)
        normalized = tf.cast(tf.reshape(normalized, (-1, height, width, channels)), x.dtype)
        return normalized * self.gamma + self.beta


class _Folding(threading.local):
    """The kernels of the graph that this thread exports, by layer; none outside of an export."""

    def __init__(self) -> None:
        self.kernels: dict[int, tf.Variable] = {}


_folding = _Folding()


def folded(function: Callable[..., Any], model: tf.Module) -> Callable[..., Any]:
    """Returns a function in whose graphs standardised kernels are variables, as plain ones are.

    The model and its own variables stay as they are: the graphs' variables are copies.

    Args:
      function: calls the model, or parts of it.
    """
    # Once, and for every trace: TensorFlow traces a function anew while it saves it.
    kernels = {
        id(layer): tf.Variable(
            layer.used_kernel(), trainable=False, name=layer.own_kernel.name[:-2]
        )
        for layer in model.submodules
        if isinstance(layer, _Standardized)
    }

    def run(*arguments: Any) -> Any:
        _folding.kernels = kernels
        try:
            return function(*arguments)
        finally:
            _folding.kernels = {}

    return run


class _Standardized:
    """A layer of standardised kernels.

    Attributes:
      kernel_name: Keras' name of the attribute that holds the kernel.
      axes: of the kernel, those over which it is standardised.
    """

    kernel_name: str
    axes: tuple[int, ...]

    @property
    def own_kernel(self) -> tf.Variable:
        return getattr(self, self.kernel_name)

    def used_kernel(self) -> tf.Tensor | tf.Variable:
        """Returns the kernel that the layer convolves with."""
        # A layer that several levels share is one kernel in an export, too.
        folded = _folding.kernels.get(id(self))
        return _standardized(self.own_kernel, self.axes) if folded is None else folded


@tf_keras.utils.register_keras_serializable("mnasdet")
class StandardizedConv2D(_Standardized, tf_keras.layers.Conv2D):
    """A convolution whose kernel is standardised in every forward pass (Qiao et al., "Weight
    Standardization", 2019). The variable is the kernel before that; an export holds the other."""

    kernel_name = "kernel"
    axes = (0, 1, 2)

    def convolution_op(self, inputs, kernel):
        return super().convolution_op(inputs, tf.cast(self.used_kernel(), inputs.dtype))


@tf_keras.utils.register_keras_serializable("mnasdet")
class DenseConv2D(tf_keras.layers.Conv2D):
    """A 1x1 convolution of a single pixel, as a product of matrices: TensorFlow's own convolution
    takes fifty times as long for the gradients of 256 images with 12544 channels on a CPU."""

    def convolution_op(self, inputs, kernel):
        channels, units = kernel.shape[2:]
        x = tf.matmul(tf.reshape(inputs, [-1, channels]), tf.reshape(kernel, [channels, units]))
        return tf.reshape(x, [-1, 1, 1, units])


@tf_keras.utils.register_keras_serializable("mnasdet")
class StandardizedDepthwiseConv2D(_Standardized, tf_keras.layers.DepthwiseConv2D):
    """The same for a depthwise convolution, in which each channel has a kernel of its own."""

    kernel_name = "depthwise_kernel"
    axes = (0, 1)

    def call(self, inputs):
        kernel = tf.cast(self.used_kernel(), inputs.dtype)
        strides = (1, *self.strides, 1)
        padding = self.padding.upper()
        x = tf.nn.depthwise_conv2d(inputs, kernel, strides, padding, dilations=self.dilation_rate)
        return x + self.bias if self.use_bias else x


def _standardized(kernel: tf.Tensor, axes: tuple[int, ...]) -> tf.Tensor:
    """Brings a kernel to mean 0 and variance 1 over `axes`, in float32."""
    kernel = tf.cast(kernel, tf.float32)
    mean = tf.reduce_mean(kernel, axes, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(kernel, mean), axes, keepdims=True)
    # Far below the variance of any kernel but one of a single weight, whose gradient would be NaN.
    return (kernel - mean) * tf.math.rsqrt(variance + 1e-10)


@tf_keras.utils.register_keras_serializable("mnasdet")
def stop_gradient(x: tf.Tensor) -> tf.Tensor:
    """Returns `x` as a constant: a name that Keras can read back from a saved model."""
    return tf.stop_gradient(x)


@tf_keras.utils.register_keras_serializable("mnasdet")
def hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """Computes relu6(x + 3) / 6; tf_keras' own has another slope."""
    return tf.nn.relu6(x + 3.0) * (1 / 6)


@tf_keras.utils.register_keras_serializable("mnasdet")
def hard_swish(x: tf.Tensor) -> tf.Tensor:
    """Computes x * relu6(x + 3) / 6, in the order that the TFLite converter makes HARD_SWISH of."""
    return x * tf.nn.relu6(x + 3.0) * (1 / 6)


@tf_keras.utils.register_keras_serializable("mnasdet")
def swish(x: tf.Tensor) -> tf.Tensor:
    """Computes x * sigmoid(x).

    TensorFlow's own has a gradient of its own, which the TFLite converter cannot save: the graph
    would lose its signature.
    """
    return x * tf.sigmoid(x)


ACTIVATIONS = {"hard_sigmoid": hard_sigmoid, "hard_swish": hard_swish, "swish": swish}

"""Layers whose weights several networks share: a smaller layer has a part of the largest one's.

Channels are the first ones, kernels the centre (Cai et al., "Once-for-All", 2020). A smaller
layer is computed smaller, and not masked, so that a step costs what its network costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
import tf_keras

from mnasdet.networks.hyperparams import Hyperparams, Initializer, Kernel
from mnasdet.networks.keras_builder import keras_initializer, keras_regularizer

# A number that is known when the graph is traced, or only when it runs.
Count: TypeAlias = "int | tf.Tensor"

# Weights by their names.
Values: TypeAlias = dict[str, np.ndarray]


class Weights(tf_keras.layers.Layer):
    """Variables of one layer of the networks, by their names in it.

    It computes nothing: `tf_keras` finds variables and their losses in layers.
    """

    def __init__(self, name: str):
        super().__init__(name=name)
        self.values: dict[str, tf.Variable] = {}

    def add(self, name: str, shape: Sequence[int], **arguments: Any) -> tf.Variable:
        """Makes a variable, "layer/name"."""
        with tf.name_scope(f"{self.name}/"):
            self.values[name] = self.add_weight(name, shape, **arguments)
        return self.values[name]


class ConvBn:
    """1x1 convolutions of several features, each with its normalisation, of which one is run."""

    def __init__(
        self, name: str, channels_in: Sequence[int], channels: int, hyperparams: Hyperparams
    ):
        """
        Args:
          channels_in: the largest width of each feature.
          channels: the largest width of the output.
        """
        self.conv = Weights(f"{name}/conv")
        # One variable for all features: an index picks a kernel when the graph runs. Branches would
        # have to be traced, one for each feature.
        self._kernel = self.conv.add(
            "kernel",
            (len(channels_in), max(channels_in), channels),
            initializer=_OfWidths(channels_in, hyperparams.kernel.initializer),
            regularizer=keras_regularizer(hyperparams.kernel.l2),
        )
        self.norm = ElasticBatchNorm(
            f"{name}/batch_norm", channels, hyperparams.normalizer, len(channels_in)
        )
        self.layers = [self.conv, self.norm.weights]

    def __call__(
        self, x: tf.Tensor, source: Count, channels_in: Count, channels: Count, training: bool
    ) -> tf.Tensor:
        """Args:
        source: the number of the feature; below zero its output is of no meaning and moves no
          averages.
        """
        is_meant, source = source >= 0, tf.maximum(source, 0)
        kernel = tf.cast(self._kernel[source, :channels_in, :channels], x.dtype)
        x = tf.nn.conv2d(x, kernel[None, None], 1, "SAME")
        return self.norm(x, channels, training, source, is_meant)

    def part(self, name: str, source: int, channels_in: int, channels: int) -> Values:
        """Returns the weights of a network's layer, by their names."""
        kernel = self._kernel.numpy()[None, None, source, :channels_in, :channels]
        of_norm = self.norm.part(f"{name}/batch_norm", channels, source)
        return {f"{name}/conv/kernel": kernel} | of_norm


class _OfWidths(tf_keras.initializers.Initializer):
    """Draws a 1x1 kernel for each of several widths; what is beyond a width is never read."""

    def __init__(self, widths: Sequence[int], drawn: Initializer):
        self._widths, self._drawn = widths, drawn

    def __call__(self, shape: Sequence[int], dtype: Any = None, **_: Any) -> tf.Tensor:
        largest, channels = shape[1:]
        kernels = [
            # By each width's own fan: by the widest one, narrow features would start too small.
            keras_initializer(self._drawn, 1, width, channels)((largest, channels), dtype)
            for width in self._widths
        ]
        return tf.stack(kernels)


class SeparableConvBn:
    """A depthwise and a 1x1 convolution, and their normalisation."""

    def __init__(
        self, name: str, kernel_size: int, channels_in: int, channels: int, hyperparams: Hyperparams
    ):
        self.depthwise = Weights(f"{name}/depthwise")
        self._depthwise_kernel = _kernel(
            self.depthwise,
            "depthwise_kernel",
            (kernel_size, kernel_size, channels_in, 1),
            hyperparams.depthwise_kernel,
        )
        self.pointwise = Weights(f"{name}/pointwise")
        self._kernel = _kernel(
            self.pointwise, "kernel", (1, 1, channels_in, channels), hyperparams.kernel
        )
        self.norm = ElasticBatchNorm(f"{name}/batch_norm", channels, hyperparams.normalizer)
        self.layers = [self.depthwise, self.pointwise, self.norm.weights]

    def __call__(
        self, x: tf.Tensor, kernel_size: Count, channels_in: Count, channels: Count, training: bool
    ) -> tf.Tensor:
        depthwise = tf.cast(_part(self._depthwise_kernel, kernel_size, channels_in, 1), x.dtype)
        x = _spatial(tf.nn.depthwise_conv2d, x, depthwise)
        kernel = tf.cast(_part(self._kernel, 1, channels_in, channels), x.dtype)
        return self.norm(tf.nn.conv2d(x, kernel, 1, "SAME"), channels, training)

    def part(self, name: str, kernel_size: int, channels_in: int, channels: int) -> Values:
        """Returns the weights of a network's layer, by their names."""
        depthwise = _part(self._depthwise_kernel.numpy(), kernel_size, channels_in, 1)
        return {
            f"{name}/depthwise/depthwise_kernel": depthwise,
            f"{name}/pointwise/kernel": _part(self._kernel.numpy(), 1, channels_in, channels),
        } | self.norm.part(f"{name}/batch_norm", channels)


class SpatialConvBn:
    """A convolution of any kernel, depthwise or not, and its normalisation."""

    def __init__(
        self,
        name: str,
        kernel_size: int,
        channels_in: int,
        channels: int,
        hyperparams: Hyperparams,
        *,
        strides: int = 1,
        depthwise: bool = False,
    ):
        """
        Args:
          kernel_size, channels_in, channels: the largest; depthwise, both widths are equal.
        """
        self._kind = "depthwise" if depthwise else "conv"
        self._conv = Weights(f"{name}/{self._kind}")
        shape = (kernel_size, kernel_size, channels_in, 1 if depthwise else channels)
        if depthwise:
            kernel = hyperparams.depthwise_kernel
            self._kernel = _kernel(self._conv, "depthwise_kernel", shape, kernel)
        else:
            self._kernel = _kernel(self._conv, "kernel", shape, hyperparams.kernel)
        self.norm = ElasticBatchNorm(f"{name}/batch_norm", channels, hyperparams.normalizer)
        self.layers = [self._conv, self.norm.weights]
        self._strides = strides

    def __call__(
        self, x: tf.Tensor, kernel_size: Count, channels_in: Count, channels: Count, training: bool
    ) -> tf.Tensor:
        kernel = tf.cast(_part(self._kernel, kernel_size, channels_in, channels), x.dtype)
        convolve = tf.nn.depthwise_conv2d if self._kind == "depthwise" else tf.nn.conv2d
        return self.norm(_spatial(convolve, x, kernel, self._strides), channels, training)

    def part(self, name: str, kernel_size: int, channels_in: int, channels: int) -> Values:
        """Returns the weights of a network's layer, by their names."""
        ((of_kernel, kernel),) = self._conv.values.items()
        own = _part(kernel.numpy(), kernel_size, channels_in, channels)
        of_norm = self.norm.part(f"{name}/batch_norm", channels)
        return {f"{name}/{self._kind}/{of_kernel}": own} | of_norm


class SqueezeExcite:
    """Gates for the channels of a feature, from the means of all of them."""

    def __init__(self, name: str, channels: int, squeezed: int, hyperparams: Hyperparams):
        """
        Args:
          channels, squeezed: the largest.
        """
        plain = hyperparams.unnormalized.kernel
        self.layers = []
        for part, width_in, width in (
            ("squeeze", channels, squeezed),
            ("excite", squeezed, channels),
        ):
            weights = Weights(f"{name}/{part}/conv")
            _kernel(weights, "kernel", (1, 1, width_in, width), plain)
            weights.add("bias", (width,), initializer="zeros")
            self.layers.append(weights)

    def __call__(self, x: tf.Tensor, channels: Count, squeezed: Count) -> tf.Tensor:
        """Args:
        squeezed: 0 leaves the feature as it is.
        """
        y = tf.reduce_mean(x, (1, 2))
        width_in = channels
        # At least one: the gates of none are computed as well, which a branch would cost more than.
        widths = (tf.maximum(squeezed, 1), channels)
        functions = (tf.nn.relu, tf.sigmoid)
        for weights, width, function in zip(self.layers, widths, functions, strict=True):
            kernel = tf.cast(weights.values["kernel"][0, 0, :width_in, :width], x.dtype)
            bias = tf.cast(weights.values["bias"][:width], x.dtype)
            y, width_in = function(tf.matmul(y, kernel) + bias), width
        return x * tf.where(squeezed > 0, y, tf.ones_like(y))[:, None, None]

    def part(self, name: str, channels: int, squeezed: int) -> Values:
        """Returns the weights of a network's layer, by their names; none where it has none."""
        if not squeezed:
            return {}
        found = {}
        widths = (("squeeze", channels, squeezed), ("excite", squeezed, channels))
        for weights, (part, width_in, width) in zip(self.layers, widths, strict=True):
            kernel, bias = weights.values["kernel"].numpy(), weights.values["bias"].numpy()
            found[f"{name}/{part}/conv/kernel"] = _part(kernel, 1, width_in, width)
            found[f"{name}/{part}/conv/bias"] = bias[:width]
        return found


class ElasticBatchNorm:
    """Batch normalisations of which one is run, of its first channels.

    Attributes:
      averages: the moving ones. They are those of whatever networks ran last.
      momentum: the share of an average that a step keeps.
    """

    def __init__(self, name: str, channels: int, norm: Any, count: int = 1):
        """
        Args:
          norm: a `BatchNorm`.
          count: of the normalisations.
        """
        self.weights = Weights(name)
        shape = (count, channels)
        # As Keras's own: each replica moves its averages, and their mean is saved.
        average: dict[str, Any] = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.MEAN,
        }
        add = self.weights.add
        self._gamma = add("gamma", shape, initializer="ones") if norm.scale else tf.ones(shape)
        self._beta = add("beta", shape, initializer="zeros") if norm.center else tf.zeros(shape)
        mean = self.weights.add("moving_mean", shape, initializer="zeros", **average)
        variance = self.weights.add("moving_variance", shape, initializer="ones", **average)
        self.averages = (mean, variance)
        self.momentum, self._epsilon = norm.momentum, norm.epsilon

    def __call__(
        self,
        x: tf.Tensor,
        channels: Count,
        training: bool,
        number: Count = 0,
        moves: bool | tf.Tensor = True,
    ) -> tf.Tensor:
        """Args:
        number: of the normalisation that is run.
        moves: whether training moves the averages.
        """
        none = tf.zeros([0])
        mean, variance = self.averages
        # Keras's layer has one width from its building on; this operation takes any. In training it
        # wants empty averages, and gives out the statistics of the batch.
        y, *statistics = tf.raw_ops.FusedBatchNormV3(
            x=x,
            scale=self._gamma[number, :channels],
            offset=self._beta[number, :channels],
            mean=none if training else mean[number, :channels],
            variance=none if training else variance[number, :channels],
            epsilon=self._epsilon,
            is_training=training,
        )
        if training:
            places = tf.stack([tf.fill([channels], number), tf.range(channels)], 1)
            # The outputs after these two are for the operation's gradient.
            for average, value in zip(self.averages, statistics, strict=False):
                old = average.read_value()
                share = (1 - self.momentum) * tf.cast(moves, value.dtype)
                moved = share * (value - old[number, :channels])
                average.assign(tf.tensor_scatter_nd_add(old, places, moved))
        return y

    def part(self, name: str, channels: int, number: int = 0) -> Values:
        """Returns the weights of a network's layer, by their names."""
        values = self.weights.values.items()
        return {f"{name}/{kind}": value.numpy()[number, :channels] for kind, value in values}


def _part(kernel: Any, kernel_size: Count, channels_in: Count, channels: Count) -> Any:
    """Returns the centre of a kernel, of its first channels; a depthwise one has 1 channel out."""
    start = (kernel.shape[0] - kernel_size) // 2
    centre = slice(start, start + kernel_size)
    return kernel[centre, centre, :channels_in, :channels]


def _spatial(
    convolve: Callable[..., tf.Tensor], x: tf.Tensor, kernel: tf.Tensor, strides: int = 1
) -> tf.Tensor:
    """Convolves a feature, in float32 where it has a single column, as `keras_builder` does."""
    dtype = tf.float32 if x.shape[2] == 1 else x.dtype
    y = convolve(tf.cast(x, dtype), tf.cast(kernel, dtype), (1, strides, strides, 1), "SAME")
    return tf.cast(y, x.dtype)


def _kernel(weights: Weights, name: str, shape: Sequence[int], kernel: Kernel) -> tf.Variable:
    size, _, channels_in, channels = shape
    # A depthwise kernel's fan is one channel.
    fans = (1, 1) if name == "depthwise_kernel" else (channels_in, channels)
    return weights.add(
        name,
        shape,
        initializer=keras_initializer(kernel.initializer, size, *fans),
        regularizer=keras_regularizer(kernel.l2),
    )


def switched(number: Count, branches: Mapping[int, Callable[[], Any]]) -> Any:
    """Runs the branch of a number, which is one of theirs."""
    numbers = list(branches)
    if len(numbers) == 1:
        return branches[numbers[0]]()
    # `switch_case` counts from 0 without gaps; numbers such as expansions have gaps.
    place = tf.argmax(tf.constant(numbers) == number, output_type=tf.int32)
    return tf.switch_case(place, list(branches.values()))


def max_pool(x: tf.Tensor, strides: Count) -> tf.Tensor:
    """Pools windows of 3x3 with SAME padding, at a stride that is known only when the graph runs.

    A stride of 1 leaves the feature as it is.
    """
    shape = tf.shape(x)

    def first(length: tf.Tensor) -> tf.Tensor:
        """Returns the first window's centre; TensorFlow pads the end first."""
        missing = tf.maximum((-(-length // strides) - 1) * strides + 3 - length, 0)
        return 1 - missing // 2

    # The stride of an operation is fixed when it is traced. So all windows are pooled, and a slice
    # takes those of the stride: the same values.
    pooled = tf.where(strides > 1, tf.nn.max_pool2d(x, 3, 1, "SAME"), x)
    rows, columns = tf.unstack(tf.where(strides > 1, [first(shape[1]), first(shape[2])], [0, 0]))
    return pooled[:, rows::strides, columns::strides]


def upsample(x: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Resizes to (height, width) by the nearest neighbour."""
    return tf.raw_ops.ResizeNearestNeighbor(images=x, size=size)


def widened(x: tf.Tensor, channels: Count) -> tf.Tensor:
    """Adds channels of zeros."""
    return tf.pad(x, [[0, 0], [0, 0], [0, 0], [0, channels - tf.shape(x)[-1]]])

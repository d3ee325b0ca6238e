"""Deformable convolution (Dai et al., "Deformable Convolutional Networks", 2017, section 2.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras


@tf_keras.utils.register_keras_serializable("mnasdet")
class DeformableConv2D(tf_keras.layers.Layer):
    """A convolution whose taps look beside their places, without a bias.

    It is called with [features, offsets]; see `deformable_conv2d`.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int,
        deformable_groups: int = 1,
        kernel_initializer="glorot_uniform",
        kernel_regularizer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.kernel_size = kernel_size
        self.deformable_groups = deformable_groups
        self.kernel_initializer = tf_keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = tf_keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        channels = input_shape[0][-1]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, channels, self.filters),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        super().build(input_shape)

    def call(self, inputs):
        x, offsets = inputs
        kernel = tf.convert_to_tensor(self.kernel)
        return deformable_conv2d(x, offsets, kernel, self.deformable_groups)

    def get_config(self):
        own = {
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "deformable_groups": self.deformable_groups,
            "kernel_initializer": tf_keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": tf_keras.regularizers.serialize(self.kernel_regularizer),
        }
        return super().get_config() | own


def deformable_conv2d(
    x: tf.Tensor, offsets: tf.Tensor, kernel: tf.Tensor, deformable_groups: int = 1
) -> tf.Tensor:
    """Convolves bilinear samples, with zeros outside the features.

    Args:
      x: [batch, height, width, channels]; all but the batch are known.
      offsets: [batch, height, width, deformable_groups * taps * 2]: for each group of channels and
        each weight of the kernel, row by row, (y, x) in pixels, added to where the plain
        convolution looks. All zeros give that one.
      kernel: [size, size, channels, filters]; the size is odd.

    Returns:
      [batch, height, width, filters].
    """
    height, width, channels = x.shape[1:]
    size, filters = kernel.shape[0], kernel.shape[-1]
    offsets = tf.reshape(offsets, (-1, height, width, deformable_groups, size * size, 2))
    y = _sum_of_taps(
        # From one pixel outside on all is zero; the corners of a sample there reach one further.
        tf.pad(x, [[0, 0], [1, 2], [1, 2], [0, 0]]),
        # Places of 16 bits would be exact to some pixels in a large feature.
        tf.cast(tf.transpose(offsets, (4, 0, 1, 2, 3, 5)), tf.float32),
        tf.reshape(kernel, (size * size, channels, filters)),
        size,
    )
    return tf.reshape(y, (-1, height, width, filters))


def _sum_of_taps(x: tf.Tensor, offsets: tf.Tensor, kernel: tf.Tensor, size: int) -> tf.Tensor:
    """Convolves tap by tap, in a loop: all samples together would take size^2 times the memory of
    the features, and XLA would compile each tap for itself.

    Args:
      x: padded by one row and column before, two after.
      offsets: [taps, batch, height, width, deformable_groups, 2].
      kernel: [taps, channels, filters].

    Returns:
      [batch, height * width, filters].
    """
    places = tf.constant(
        [
            (row - (size - 1) // 2, column - (size - 1) // 2)
            for row, column in np.ndindex(size, size)
        ],
        tf.float32,
    )
    num_taps = size * size

    def added(x: tf.Tensor, offsets: tf.Tensor, kernel: tf.Tensor, tap: tf.Tensor) -> tf.Tensor:
        """Returns what one weight of the kernel adds."""
        return tf.matmul(_samples(x, offsets + places[tap]), kernel)

    @tf.custom_gradient
    def convolve(x, offsets, kernel):
        def add(tap, total):
            return tap + 1, total + added(x, offsets[tap], kernel[tap], tap)

        height, width = offsets.shape[2:4]
        zeros = tf.zeros((tf.shape(x)[0], height * width, kernel.shape[-1]), x.dtype)
        _, y = _loop(num_taps, add, zeros)

        def gradient(dy):
            def add(tap, dx, doffsets, dkernel):
                # Sampled anew: the samples of all taps would be kept from the forward pass.
                own, weights = offsets[tap], kernel[tap]
                with tf.GradientTape() as tape:
                    tape.watch([x, own, weights])
                    y = added(x, own, weights, tap)
                of_x, of_offsets, of_kernel = tape.gradient(y, [x, own, weights], dy)
                return (
                    tap + 1,
                    dx + of_x,
                    doffsets.write(tap, of_offsets),
                    dkernel.write(tap, of_kernel),
                )

            _, dx, doffsets, dkernel = _loop(
                num_taps,
                add,
                tf.zeros_like(x),
                tf.TensorArray(offsets.dtype, num_taps, element_shape=offsets.shape[1:]),
                tf.TensorArray(kernel.dtype, num_taps, element_shape=kernel.shape[1:]),
            )
            return dx, doffsets.stack(), dkernel.stack()

        return y, gradient

    return convolve(x, offsets, kernel)


def _loop(times: int, body: Callable[..., tuple], *state: Any) -> tuple:
    """Calls `body(index, *state)` for every index, one after the other."""
    return tf.while_loop(
        lambda index, *_: index < times,
        body,
        (0, *state),
        # Iterations at the same time would hold the samples of several taps.
        parallel_iterations=1,
        maximum_iterations=times,
    )


def _samples(x: tf.Tensor, offsets: tf.Tensor) -> tf.Tensor:
    """Interpolates the features at every place plus its offset.

    Args:
      x: padded by one row and column before, two after.
      offsets: [batch, height, width, deformable_groups, 2] float32.

    Returns:
      [batch, height * width, channels].
    """
    height, width, groups = offsets.shape[1:4]
    padded_height, padded_width, channels = x.shape[1:]
    # Each group of channels is a pixel of its own, so that one gather serves all groups.
    pixels = tf.reshape(x, (-1, padded_height * padded_width * groups, channels // groups))
    rows = tf.range(height, dtype=tf.float32)[:, None, None] + offsets[..., 0]
    columns = tf.range(width, dtype=tf.float32)[:, None] + offsets[..., 1]
    # Offsets are predictions of any size: the clip keeps the indices within the padding, where
    # all is zero. One more is the row or column that was padded before.
    rows = tf.clip_by_value(rows, -1.0, float(height)) + 1
    columns = tf.clip_by_value(columns, -1.0, float(width)) + 1
    top, left = tf.floor(rows), tf.floor(columns)
    down, right = rows - top, columns - left
    corner = (tf.cast(top, tf.int32) * padded_width + tf.cast(left, tf.int32)) * groups
    corner += tf.range(groups)

    def weighed(step: int, weight: tf.Tensor) -> tf.Tensor:
        values = tf.gather(
            pixels, tf.reshape(corner + step * groups, (-1, height * width * groups)), batch_dims=1
        )
        weight = tf.cast(tf.reshape(weight, (-1, height * width * groups, 1)), x.dtype)
        return values * weight

    total = (
        weighed(0, (1 - down) * (1 - right))
        + weighed(1, (1 - down) * right)
        + weighed(padded_width, down * (1 - right))
        + weighed(padded_width + 1, down * right)
    )
    return tf.reshape(total, (-1, height * width, channels))

"""The Keras layers of our own: only what tf_keras has no layer for."""

from __future__ import annotations

import tensorflow as tf
import tf_keras


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
            return tf.raw_ops.ResizeNearestNeighbor(images=x, size=self.size)
        block = (self.size[0] // height, self.size[1] // width)
        return _upsample(x, self.size, block)

    def get_config(self):
        return super().get_config() | {"size": self.size}


def _upsample(x: tf.Tensor, size: tuple[int, int], block: tuple[int, int]) -> tf.Tensor:
    @tf.custom_gradient
    def upsample(x):
        def gradient(dy):
            return tf.nn.avg_pool2d(dy, block, block, "VALID") * float(block[0] * block[1])

        return tf.raw_ops.ResizeNearestNeighbor(images=x, size=size), gradient

    return upsample(x)

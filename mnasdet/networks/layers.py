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
        rate = (1 - self.keep_probability) * height * width / side**2 / (seeds[0] * seeds[1])
        starts = tf.cast(tf.random.uniform((tf.shape(x)[0], *seeds, 1)) < rate, x.dtype)
        # A block covers its start and what is behind it.
        starts = tf.pad(starts, [[0, 0], [side - 1, side - 1], [side - 1, side - 1], [0, 0]])
        kept = 1 - tf.nn.max_pool2d(starts, side, 1, "VALID")
        return x * kept / tf.maximum(tf.reduce_mean(kept), 1e-3)

    def get_config(self):
        own = {"keep_probability": self.keep_probability, "block_size": self.block_size}
        return super().get_config() | own


@tf_keras.utils.register_keras_serializable("mnasdet")
def hard_sigmoid(x: tf.Tensor) -> tf.Tensor:
    """relu6(x + 3) / 6; tf_keras' own has another slope."""
    return tf.nn.relu6(x + 3.0) * (1 / 6)


@tf_keras.utils.register_keras_serializable("mnasdet")
def hard_swish(x: tf.Tensor) -> tf.Tensor:
    """x * relu6(x + 3) / 6, in the order that the TFLite converter makes HARD_SWISH of."""
    return x * tf.nn.relu6(x + 3.0) * (1 / 6)


@tf_keras.utils.register_keras_serializable("mnasdet")
def swish(x: tf.Tensor) -> tf.Tensor:
    """x * sigmoid(x). TensorFlow's own has a gradient of its own, which the TFLite converter cannot
    save: the graph would lose its signature."""
    return x * tf.sigmoid(x)


ACTIVATIONS = {"hard_sigmoid": hard_sigmoid, "hard_swish": hard_swish, "swish": swish}

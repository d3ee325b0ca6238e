"""Image classification on top of a backbone."""

from __future__ import annotations

import dataclasses

from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.hyperparams import Hyperparams, Initializer, Kernel
from mnasdet.protos import architecture_pb2

# As MnasNet in tensorflow/tpu: within 1 / sqrt(outputs), and its L2 of 1e-5 halved for Keras.
DEFAULT = Hyperparams(Kernel(Initializer("uniform", scale=1 / 3, mode="fan_out"), l2=5e-6))

# ImageNet's 1000 classes are what the rule is for. With 10, the first logits of MnasNet would
# deviate by 4.6, and the first loss would be 6.8 where even chance has 2.3.
_LEAST_FAN_OUT = 1000


def classifier(
    b: Builder,
    x: Node,
    *,
    num_classes: int,
    hidden_channels: int = 0,
    dropout: float = 0.0,
    activation: str = "hard_swish",
    hyperparams: Hyperparams = DEFAULT,
) -> Node:
    """Builds the logits of the classes, (num_classes,), from the global average of a feature.

    Args:
      x: (height, width, channels).
      hidden_channels: of a layer before the classes, without normalisation; 0: none.
      dropout: the share dropped before the classes.
      activation: of the hidden layer; MobileNetV3's is hard_swish.
    """

    # Convolutions on 1x1 pixels in place of dense layers: cost, latency tables and int8 rounding
    # know them already.
    kernel = hyperparams.kernel
    x = b.global_avg_pool(x, name="mean")
    if hidden_channels:
        x = b.conv2d(x, hidden_channels, 1, use_bias=True, kernel=kernel, name="hidden/conv")
        x = b.activation(x, activation, name=f"hidden/{activation}")
    x = b.dropout(x, dropout, name="dropout")
    kernel = dataclasses.replace(kernel, initializer=_narrowed(kernel.initializer, num_classes))
    x = b.conv2d(x, num_classes, 1, use_bias=True, kernel=kernel, name="logits/conv")
    return b.reshape(x, (num_classes,), name="logits")


def _narrowed(initializer: Initializer, num_classes: int) -> Initializer:
    """Returns the initializer for fewer classes than it was made for."""
    if initializer.mode != "fan_out" or num_classes >= _LEAST_FAN_OUT:
        return initializer
    return dataclasses.replace(initializer, scale=initializer.scale * num_classes / _LEAST_FAN_OUT)


def from_proto(
    b: Builder, x: Node, proto: architecture_pb2.Classifier, *, num_classes: int
) -> Node:
    """Builds `classifier` as an Architecture describes it."""
    return classifier(
        b,
        x,
        num_classes=num_classes,
        hidden_channels=proto.hidden_channels,
        dropout=proto.dropout,
    )

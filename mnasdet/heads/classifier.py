"""Image classification on top of a backbone."""

from __future__ import annotations

from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.hyperparams import Hyperparams, Initializer, Kernel
from mnasdet.protos import architecture_pb2

# As MnasNet in tensorflow/tpu: within 1 / sqrt(classes), and its L2 of 1e-5 halved for Keras.
DEFAULT = Hyperparams(Kernel(Initializer("uniform", scale=1 / 3, mode="fan_out"), l2=5e-6))


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

    def conv(x: Node, filters: int, name: str) -> Node:
        # Convolutions on 1x1 pixels in place of dense layers: cost, latency tables and int8
        # rounding know them already.
        return b.conv2d(
            x,
            filters,
            1,
            use_bias=True,
            kernel=hyperparams.kernel,
            name=name,
        )

    x = b.global_avg_pool(x, name="mean")
    if hidden_channels:
        x = conv(x, hidden_channels, "hidden/conv")
        x = b.activation(x, activation, name=f"hidden/{activation}")
    x = b.dropout(x, dropout, name="dropout")
    return b.reshape(conv(x, num_classes, "logits/conv"), (num_classes,), name="logits")


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

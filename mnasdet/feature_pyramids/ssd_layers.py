"""The features of SSD (Liu et al., "SSD: Single Shot MultiBox Detector", 2016) and SSDLite (Sandler
et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, section 6.2)."""

from __future__ import annotations

from collections.abc import Sequence

from mnasdet.networks.blocks import conv_bn, depthwise_conv_bn
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import BackboneFeatures
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, Initializer, Kernel
from mnasdet.protos import architecture_pb2

_TRUNCATED_NORMAL = Initializer("truncated_normal", 0.03)

# The OD API's ssdlite_mobilenet_v3 configs; slim's L2 of 4e-5 halved for Keras.
SSDLITE_CONFIG = Hyperparams(
    kernel=Kernel(_TRUNCATED_NORMAL, 2e-5),
    depthwise_kernel=Kernel(_TRUNCATED_NORMAL),
    normalizer=BatchNorm(momentum=0.97, epsilon=0.001),
    activation="relu6",
)


def ssd_layers(
    b: Builder,
    expansion: Node,
    last: Node,
    *,
    channels: Sequence[int] = (512, 256, 256, 128),
    separable: bool = True,
    depth_multiplier: float = 1.0,
    min_depth: int = 16,
    hyperparams: Hyperparams = SSDLITE_CONFIG,
) -> list[Node]:
    """Returns two features of a backbone and extra layers after them.

    Each feature has half the size of the one before.

    Args:
      expansion: at stride 16, `last`: at stride 32; they are handed on as they are.
      channels: of the extra layers. The 1x1 convolution before each has half of them.
      separable: depthwise separable extra layers, SSDLite's.
      depth_multiplier: factor on `channels`, cut off to whole numbers as in the OD API.
      min_depth: the least width.

    Returns:
      The features, finest first, (height, width, channels).
    """

    def width(channels: float) -> int:
        return max(int(channels * depth_multiplier), min_depth)

    # The expansion is read before its depthwise convolution, which strides. In MnasNet's own
    # code the endpoint of that name is the tensor after it, at stride 32.
    features = [expansion, last]
    for index, depth in enumerate(channels):
        with b.scope(f"extra_{index}"):
            x = conv_bn(
                b,
                features[-1],
                width(depth / 2),
                1,
                hyperparams,
                activation=hyperparams.activation,
                name="reduce",
            )
            features.append(_half(b, x, width(depth), separable, hyperparams))
    return features


def _half(b: Builder, x: Node, channels: int, separable: bool, hyperparams: Hyperparams) -> Node:
    """Adds a 3x3 convolution of stride 2."""
    activation = hyperparams.activation
    if not separable:
        return conv_bn(
            b, x, channels, 3, hyperparams, strides=2, activation=activation, name="conv"
        )
    x = depthwise_conv_bn(b, x, 3, hyperparams, strides=2, activation=activation, name="depthwise")
    return conv_bn(b, x, channels, 1, hyperparams, activation=activation, name="pointwise")


def from_proto(
    b: Builder,
    features: BackboneFeatures,
    proto: architecture_pb2.SsdLayers,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 16,
    hyperparams: Hyperparams | None = None,
) -> list[list[Node]]:
    """Builds `ssd_layers` as an Architecture describes it; nothing is repeated, so one list."""
    return [
        ssd_layers(
            b,
            # Backbones without inverted bottlenecks have no expansion.
            features.expansion or features.levels[4],
            features.last,
            channels=proto.channels,
            separable=proto.separable,
            depth_multiplier=depth_multiplier,
            min_depth=min_depth,
            hyperparams=hyperparams or SSDLITE_CONFIG,
        )
    ]

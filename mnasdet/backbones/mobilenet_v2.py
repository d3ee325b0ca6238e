"""MobileNetV2 (Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018)."""

from __future__ import annotations

from mnasdet.networks.blocks import conv_bn, depthwise_conv_bn, round_channels
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import BackboneFeatures
from mnasdet.networks.hyperparams import HE_NORMAL, BatchNorm, Hyperparams, Initializer, Kernel
from mnasdet.protos import architecture_pb2

# Table 2: expansion, channels, repeats, stride of the first repeat.
_STAGES = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]

# The hyper-parameters of the OD API's MobileNetV2 + MnasFPN extractor; slim's L2 of 4e-5 halved for
# Keras.
MNASFPN_EXTRACTOR = Hyperparams(
    kernel=Kernel(HE_NORMAL, 2e-5),
    depthwise_kernel=Kernel(Initializer("truncated_normal", 0.536), 2e-5),
    normalizer=BatchNorm(momentum=0.99, epsilon=0.01),
)


def mobilenet_v2(
    b: Builder,
    image: Node,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    last_channels: int = 1280,
    classifies: bool = False,
    hyperparams: Hyperparams = MNASFPN_EXTRACTOR,
) -> BackboneFeatures:
    """Builds MobileNetV2 (Sandler et al., 2018).

    Its levels are the linear outputs of the last bottleneck of each stride. Levels 2 to 5 have 24,
    32, 96 and 320 channels.

    Args:
      image: (height, width, 3).
      depth_multiplier: factor on every width, rounded by `round_channels`.
      min_depth: the least width.
      last_channels: of the 1x1 convolution after the last bottleneck.
      classifies: whether a classifier reads that convolution. A multiplier below 1 then leaves it
        as it is (section 4); the OD API's detectors scale it with the rest.
    """

    def width(channels: int) -> int:
        return round_channels(channels * depth_multiplier, min_depth)

    x = conv_bn(b, image, width(32), 3, hyperparams, strides=2, activation="relu6", name="layer_1")
    level, levels, expansion = 1, {}, None
    index = 1
    for ratio, channels, repeats, stride in _STAGES:
        for repeat in range(repeats):
            index += 1
            strides = stride if repeat == 0 else 1
            level += strides == 2
            with b.scope(f"layer_{index}"):
                expanded = _expand(b, x, ratio, hyperparams)
                # SSDLite's first feature (section 6.2): the expansion before the depthwise
                # convolution to stride 32.
                if strides == 2 and level == 5:
                    expansion = expanded
                x = _project(b, x, expanded, width(channels), strides, hyperparams)
            levels[level] = x
    multiplier = max(depth_multiplier, 1.0) if classifies else depth_multiplier
    last_channels = round_channels(last_channels * multiplier, min_depth)
    last = conv_bn(
        b, x, last_channels, 1, hyperparams, activation="relu6", name=f"layer_{index + 1}"
    )
    return BackboneFeatures({level: levels[level] for level in range(2, 6)}, last, expansion)


def _expand(b: Builder, x: Node, ratio: int, hyperparams: Hyperparams) -> Node:
    if ratio == 1:
        return x
    expanded = round_channels(x.channels * ratio)
    return conv_bn(b, x, expanded, 1, hyperparams, activation="relu6", name="expand")


def _project(
    b: Builder, x: Node, expanded: Node, channels: int, strides: int, hyperparams: Hyperparams
) -> Node:
    """Adds a 3x3 depthwise, a linear 1x1 projection, and the bottleneck's input where it fits."""
    y = depthwise_conv_bn(
        b, expanded, 3, hyperparams, strides=strides, activation="relu6", name="depthwise"
    )
    y = conv_bn(b, y, channels, 1, hyperparams, name="project")
    return b.add(x, y, name="add") if x.shape == y.shape else y


def from_proto(
    b: Builder,
    image: Node,
    proto: architecture_pb2.MobileNetV2,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    classifies: bool = False,
    hyperparams: Hyperparams | None = None,
) -> BackboneFeatures:
    """Builds `mobilenet_v2` as an Architecture describes it."""
    return mobilenet_v2(
        b,
        image,
        depth_multiplier=depth_multiplier * proto.depth_multiplier,
        min_depth=min_depth,
        last_channels=proto.last_channels,
        classifies=classifies,
        hyperparams=hyperparams or MNASFPN_EXTRACTOR,
    )

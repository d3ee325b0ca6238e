"""MobileNetV2 (Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018)."""

from __future__ import annotations

from mnasdet.networks.blocks import conv_bn, depthwise_conv_bn, round_channels
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.hyperparams import HE_NORMAL, Hyperparams, Initializer

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

# What the OD API's MobileNetV2 + MnasFPN extractor carries; slim's L2 of 4e-5 halved for Keras.
MNASFPN_EXTRACTOR = Hyperparams(
    initializer=HE_NORMAL,
    depthwise_initializer=Initializer("truncated_normal", 0.536),
    l2=2e-5,
    depthwise_l2=2e-5,
    batch_norm_momentum=0.99,
    batch_norm_epsilon=0.01,
)


def mobilenet_v2(
    b: Builder,
    image: Node,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    hyperparams: Hyperparams = MNASFPN_EXTRACTOR,
) -> dict[int, Node]:
    """Features by level, level l at stride 2^l: the linear outputs of the last bottleneck of
    strides 8, 16 and 32 (levels 3, 4, 5: 32, 96 and 320 channels). The 1280-wide layer of the
    classifier is not part of it.

    Args:
      image: (height, width, 3).
      depth_multiplier: factor on every width, rounded by `round_channels`.
      min_depth: the least width.
    """

    def width(channels: int) -> int:
        return round_channels(channels * depth_multiplier, min_depth)

    x = conv_bn(b, image, width(32), 3, hyperparams, strides=2, activation="relu6", name="layer_1")
    level, features = 1, {}
    index = 1
    for expansion, channels, repeats, stride in _STAGES:
        for repeat in range(repeats):
            index += 1
            strides = stride if repeat == 0 else 1
            level += strides == 2
            with b.scope(f"layer_{index}"):
                x = inverted_residual(
                    b, x, width(channels), expansion, strides=strides, hyperparams=hyperparams
                )
            features[level] = x
    return {level: features[level] for level in (3, 4, 5)}


def inverted_residual(
    b: Builder,
    x: Node,
    channels: int,
    expansion: int,
    *,
    strides: int,
    hyperparams: Hyperparams,
) -> Node:
    """1x1 expansion, 3x3 depthwise, linear 1x1 projection, and the input added where it fits."""
    y = x
    if expansion > 1:
        expanded = round_channels(x.channels * expansion)
        y = conv_bn(b, y, expanded, 1, hyperparams, activation="relu6", name="expand")
    y = depthwise_conv_bn(
        b, y, 3, hyperparams, strides=strides, activation="relu6", name="depthwise"
    )
    y = conv_bn(b, y, channels, 1, hyperparams, name="project")
    return b.add(x, y, name="add") if x.shape == y.shape else y

"""The backbones of SM-NAS (Yao et al., "SM-NAS: Structural-to-Modular Neural Architecture Search
for Object Detection", 2020, section 3.2.2): residual networks that a string describes."""

from __future__ import annotations

import math

from mnasdet import base_codes
from mnasdet.backbones.resnet import TPU_DETECTION, basic_block, bottleneck_block
from mnasdet.networks.blocks import conv_bn, round_channels
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import MAX_LEVEL, BackboneFeatures
from mnasdet.networks.hyperparams import Hyperparams
from mnasdet.protos import architecture_pb2


def base_code(
    b: Builder,
    image: Node,
    *,
    code: str = "basicblock_64_1-21-21-12",
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    hyperparams: Hyperparams = TPU_DETECTION,
) -> BackboneFeatures:
    """Builds the network of a base code; `base_codes` says what the string means.

    The stem is two 3x3 convolutions of stride 2, the first half as wide as the base, and no pool
    (figure 2). Blocks are those of ResNet and ResNeXt, but that an Xbottleneck is twice as wide
    inside as its planes.

    Args:
      image: (height, width, 3).
      code: such as "basicblock_64_1-21-21-12", SM-NAS's E0.
      depth_multiplier: factor on every width, rounded by `round_channels`; widths as given for 1.
      min_depth: the least of the scaled widths.

    Raises:
      ConfigError: the code cannot be read.
    """
    network = base_codes.parse(code)

    def width(channels: int, divisor: int = 8) -> int:
        if depth_multiplier == 1.0:
            return channels
        # A group's channels have to be whole.
        return round_channels(channels * depth_multiplier, max(min_depth, divisor), divisor)

    x = image
    for layer, channels in enumerate((network.base // 2, network.base), start=1):
        name = f"stem/layer_{layer}"
        x = conv_bn(b, x, width(channels), 3, hyperparams, strides=2, activation="relu", name=name)
    expansion = base_codes.EXPANSIONS[network.block]
    levels = {}
    for level, stage in enumerate(network.planes, start=base_codes.FIRST_LEVEL):
        for block, planes in enumerate(stage):
            # The stem strides twice: the first stage keeps its size.
            strides = 2 if level > base_codes.FIRST_LEVEL and block == 0 else 1
            channels = width(expansion * planes)
            with b.scope(f"stage_{level}/block_{block + 1}"):
                if network.block == "basicblock":
                    x = basic_block(b, x, channels, strides, hyperparams)
                    continue
                inner = planes
                if network.block == "Xbottleneck":
                    # As ResNeXt's 32 groups of 4 channels at 64 planes.
                    inner = 2 * planes
                x = bottleneck_block(
                    b,
                    x,
                    width(inner, math.lcm(8, network.groups)),
                    channels,
                    # The 3x3 convolution strides: the 1x1 before it would skip pixels unseen.
                    (1, strides),
                    network.groups,
                    hyperparams,
                )
        levels[level] = x
    return BackboneFeatures(levels, levels[MAX_LEVEL])


def from_proto(
    b: Builder,
    image: Node,
    proto: architecture_pb2.BaseCode,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    hyperparams: Hyperparams | None = None,
) -> BackboneFeatures:
    """Builds `base_code` as an Architecture describes it."""
    return base_code(
        b,
        image,
        code=proto.code,
        depth_multiplier=depth_multiplier,
        min_depth=min_depth,
        hyperparams=hyperparams or TPU_DETECTION,
    )

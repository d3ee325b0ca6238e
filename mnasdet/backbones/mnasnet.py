"""MnasNet (Tan et al., "MnasNet: Platform-Aware Neural Architecture Search for Mobile", 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnasdet.networks.blocks import (
    conv_bn,
    depthwise_conv_bn,
    scaled_channels,
    squeeze_excite,
)
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import MAX_LEVEL, BackboneFeatures
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, Initializer, Kernel
from mnasdet.protos import architecture_pb2


@dataclass(frozen=True)
class Block:
    """Equal layers in a row; only the first strides (section 4.1).

    Attributes:
      channels: of the block's output.
      repeats: N, its layers.
      kernel_size: of the depthwise or plain convolution.
      stride: of the first layer.
      expansion: expanded over input channels; of "mbconv" only.
      se_ratio: squeezed channels over the layer's input channels; 0: no squeeze and excitation.
      op: "mbconv", an inverted bottleneck; "conv", a plain convolution; "separable", a depthwise
        convolution and a linear projection.
      skip: "identity", where stride and widths allow it; "none"; "pool", which adds the pooled
        input where identity is not possible; "average_pool", which does so in every layer.
    """

    channels: int
    repeats: int = 1
    kernel_size: int = 3
    stride: int = 1
    expansion: int = 6
    se_ratio: float = 0.0
    op: str = "mbconv"
    skip: str = "identity"


# As in tensorflow/tpu; its L2 of 1e-5 halved for Keras. One rule gives depthwise kernels, which
# have one channel out, the deviation sqrt(2) / kernel size.
_FAN_OUT = Initializer("normal", scale=2.0, mode="fan_out")
PUBLISHED = Hyperparams(
    kernel=Kernel(_FAN_OUT, 5e-6),
    depthwise_kernel=Kernel(_FAN_OUT, 5e-6),
    normalizer=BatchNorm(momentum=0.99, epsilon=0.001),
)


def mnasnet(
    b: Builder,
    image: Node,
    *,
    blocks: Sequence[Block],
    stem_channels: int = 32,
    last_channels: int = 1280,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    hyperparams: Hyperparams = PUBLISHED,
) -> BackboneFeatures:
    """Builds MnasNet.

    Its levels are the linear outputs of the last layer of each stride. Levels 2 to 5 of A1 have
    24, 40, 112 and 320 channels.

    Args:
      image: (height, width, 3).
      blocks: four of them with stride 2.
      stem_channels: of the 3x3 convolution before the blocks.
      last_channels: of the 1x1 convolution after them, which no multiplier scales.
      depth_multiplier: factor on the widths of stem and blocks, rounded by `round_channels`;
        widths as given for 1.
      min_depth: the least of the scaled widths.
    """

    def width(channels: int) -> int:
        return scaled_channels(channels, depth_multiplier, min_depth)

    x = conv_bn(
        b, image, width(stem_channels), 3, hyperparams, strides=2, activation="relu", name="stem"
    )
    level, levels, expansion = 1, {}, None
    for index, block in enumerate(blocks, start=1):
        for repeat in range(block.repeats):
            strides = block.stride if repeat == 0 else 1
            level += strides == 2
            with b.scope(f"block_{index}/layer_{repeat + 1}"):
                expanded = _expand(b, x, block, hyperparams)
                if strides == 2 and level == MAX_LEVEL:
                    # SSDLite's first feature: the last expansion at stride 16, before the depthwise
                    # convolution takes it to 32.
                    expansion = expanded
                y = _transform(b, x, expanded, block, width(block.channels), strides, hyperparams)
                x = _skip(b, x, y, block.skip, strides, hyperparams)
            levels[level] = x
    if level != MAX_LEVEL:
        raise ValueError(f"the blocks give level {level}; {MAX_LEVEL}, stride 32, is needed")
    last = conv_bn(b, x, last_channels, 1, hyperparams, activation="relu", name="last")
    return BackboneFeatures({level: levels[level] for level in range(2, 6)}, last, expansion)


def _expand(b: Builder, x: Node, block: Block, hyperparams: Hyperparams) -> Node:
    if block.op != "mbconv" or block.expansion == 1:
        return x
    channels = x.channels * block.expansion
    return conv_bn(b, x, channels, 1, hyperparams, activation="relu", name="expand")


def _transform(
    b: Builder,
    x: Node,
    expanded: Node,
    block: Block,
    channels: int,
    strides: int,
    hyperparams: Hyperparams,
) -> Node:
    """Builds the layer after its expansion and without its skip."""
    if block.op == "conv":
        y = conv_bn(
            b,
            x,
            channels,
            block.kernel_size,
            hyperparams,
            strides=strides,
            activation="relu",
            name="conv",
        )
    else:
        y = depthwise_conv_bn(
            b,
            expanded,
            block.kernel_size,
            hyperparams,
            strides=strides,
            activation="relu",
            name="depthwise",
        )
    if block.se_ratio:
        # A quarter of the layer's input, as in the public code; MobileNetV3 takes it from the
        # expanded width.
        squeezed = max(1, int(block.se_ratio * x.channels))
        y = squeeze_excite(b, y, squeezed, hyperparams, name="squeeze_excite")
    return y if block.op == "conv" else conv_bn(b, y, channels, 1, hyperparams, name="project")


def _skip(b: Builder, x: Node, y: Node, skip: str, strides: int, hyperparams: Hyperparams) -> Node:
    """Adds the layer's input `x` to `y` as `skip` says."""
    fits = strides == 1 and x.channels == y.channels
    if skip == "none" or (skip == "identity" and not fits):
        return y
    if skip == "average_pool" or not fits:
        # The paper names pooling only; this is the least that makes the shapes agree.
        x = b.avg_pool(x, 3, strides=strides, name="skip/avg_pool")
        if x.channels != y.channels:
            x = conv_bn(b, x, y.channels, 1, hyperparams, name="skip")
    return b.add(x, y, name="add")


def from_proto(
    b: Builder,
    image: Node,
    proto: architecture_pb2.MnasNet,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    hyperparams: Hyperparams | None = None,
) -> BackboneFeatures:
    """Builds `mnasnet` as an Architecture describes it."""
    return mnasnet(
        b,
        image,
        blocks=[_block(block) for block in proto.block],
        stem_channels=proto.stem_channels,
        last_channels=proto.last_channels,
        depth_multiplier=depth_multiplier,
        min_depth=min_depth,
        hyperparams=hyperparams or PUBLISHED,
    )


def _block(proto: architecture_pb2.MnasNet.Block) -> Block:
    return Block(
        channels=proto.channels,
        repeats=proto.repeats,
        kernel_size=proto.kernel_size,
        stride=proto.stride,
        expansion=proto.expansion,
        se_ratio=proto.se_ratio,
        op=architecture_pb2.MnasNet.Op.Name(proto.op).lower(),
        skip=architecture_pb2.MnasNet.Skip.Name(proto.skip).lower(),
    )

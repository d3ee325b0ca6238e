"""ResNet (He et al., "Deep Residual Learning for Image Recognition", 2016) and ResNeXt (Xie et al.,
"Aggregated Residual Transformations for Deep Neural Networks", 2017)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mnasdet.networks.blocks import conv_bn, round_channels
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import MAX_LEVEL, BackboneFeatures
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, Initializer, Kernel
from mnasdet.protos import architecture_pb2

# He et al., table 1: blocks of the stages of strides 4, 8, 16 and 32; 10 from tensorflow/tpu.
_BASIC = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
_BOTTLENECK = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

# A bottleneck's output over the width of a basic block.
_BOTTLENECK_EXPANSION = 4

# As tensorflow/tpu's detectors; their L2 of 1e-4 halved for Keras.
TPU_DETECTION = Hyperparams(
    kernel=Kernel(Initializer("truncated_normal", scale=1.0, mode="fan_in"), 5e-5),
    normalizer=BatchNorm(momentum=0.997, epsilon=1e-4),
)


def resnet(
    b: Builder,
    image: Node,
    *,
    depth: int = 50,
    groups: int = 1,
    width_per_group: int = 64,
    strides_in_1x1: bool = False,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    hyperparams: Hyperparams = TPU_DETECTION,
) -> BackboneFeatures:
    """Builds ResNet, or with more than one group ResNeXt.

    Its levels are the outputs of the last block of each stride. Levels 2 to 5 have 256, 512, 1024
    and 2048 channels, with basic blocks a quarter of that.

    A bottleneck strides in its 3x3 convolution, not in the first 1x1 as the paper says, unless it
    is asked to: so do tensorflow/tpu and tf-models, and the counts that are usually cited.

    Args:
      image: (height, width, 3).
      depth: 10, 18 or 34 with basic blocks, 50, 101 or 152 with bottlenecks.
      groups: of the 3x3 convolution in a bottleneck.
      width_per_group: its channels a group at stride 4, doubled at every stride.
      strides_in_1x1: whether bottlenecks stride in their first 1x1 convolution.
      depth_multiplier: factor on every width, rounded by `round_channels`; widths as given for 1.
      min_depth: the least of the scaled widths.
    """
    design = _Design(depth, groups, width_per_group, strides_in_1x1, depth_multiplier, min_depth)
    stem = design.width(64)
    x = conv_bn(b, image, stem, 7, hyperparams, strides=2, activation="relu", name="stem")
    x = b.max_pool(x, 3, strides=2, name="stem/max_pool")
    levels = {}
    for level in range(2, MAX_LEVEL + 1):
        x = levels[level] = _stage(b, x, level, 2 if level > 2 else 1, design, hyperparams)
    return BackboneFeatures(levels, levels[MAX_LEVEL])


@dataclass(frozen=True)
class _Design:
    """The numbers that the blocks of all stages come from, as in `resnet`."""

    depth: int
    groups: int
    width_per_group: int
    strides_in_1x1: bool
    depth_multiplier: float
    min_depth: int

    @property
    def has_bottlenecks(self) -> bool:
        return self.depth in _BOTTLENECK

    def width(self, channels: int, divisor: int = 8) -> int:
        """Returns a width with the multiplier, a multiple of `divisor`."""
        if self.depth_multiplier == 1.0:
            return channels
        # A group's channels have to be whole, so the width of a grouped convolution is a multiple
        # of both.
        scaled = channels * self.depth_multiplier
        return round_channels(scaled, max(self.min_depth, divisor), divisor)


def _stage(
    b: Builder, x: Node, level: int, strides: int, design: _Design, hyperparams: Hyperparams
) -> Node:
    """Builds the blocks of one stage, the first of which strides."""
    scale = 2 ** (level - 2)
    expansion = _BOTTLENECK_EXPANSION if design.has_bottlenecks else 1
    channels = design.width(64 * scale * expansion)
    groups = design.groups
    inner = design.width(groups * design.width_per_group * scale, math.lcm(8, groups))
    blocks = _stages(design.depth, groups, design.width_per_group)
    for block in range(blocks[level - 2]):
        stride = strides if block == 0 else 1
        with b.scope(f"stage_{level}/block_{block + 1}"):
            if design.has_bottlenecks:
                both = (stride, 1) if design.strides_in_1x1 else (1, stride)
                x = bottleneck_block(b, x, inner, channels, both, groups, hyperparams)
            else:
                x = basic_block(b, x, channels, stride, hyperparams)
    return x


def _stages(depth: int, groups: int, width_per_group: int) -> tuple[int, ...]:
    """Returns the blocks of every stage."""
    allowed = sorted(_BASIC | _BOTTLENECK)
    if depth not in allowed:
        raise ValueError(f"depth is {depth}; one of {allowed} is allowed")
    if depth in _BASIC and (groups, width_per_group) != (1, 64):
        raise ValueError(
            f"groups is {groups} and width_per_group is {width_per_group}; depth {depth} has basic "
            "blocks, and with those only 1 and 64 are allowed"
        )
    return (_BASIC | _BOTTLENECK)[depth]


def basic_block(b: Builder, x: Node, channels: int, strides: int, hyperparams: Hyperparams) -> Node:
    """Builds a block of two 3x3 convolutions, of which the first strides."""
    y = conv_bn(b, x, channels, 3, hyperparams, strides=strides, activation="relu", name="layer_1")
    y = conv_bn(b, y, channels, 3, hyperparams, name="layer_2")
    return _residual(b, x, y, strides, hyperparams)


def bottleneck_block(
    b: Builder,
    x: Node,
    inner: int,
    channels: int,
    strides: tuple[int, int],
    groups: int,
    hyperparams: Hyperparams,
) -> Node:
    """Builds a bottleneck.

    Args:
      inner: width of its first two convolutions; `channels` is that of the third.
      strides: of the first 1x1 and of the 3x3 convolution.
      groups: of the 3x3 convolution.
    """
    y = conv_bn(b, x, inner, 1, hyperparams, strides=strides[0], activation="relu", name="layer_1")
    y = conv_bn(
        b,
        y,
        inner,
        3,
        hyperparams,
        strides=strides[1],
        groups=groups,
        activation="relu",
        name="layer_2",
    )
    y = conv_bn(b, y, channels, 1, hyperparams, name="layer_3")
    return _residual(b, x, y, max(strides), hyperparams)


def _residual(b: Builder, x: Node, y: Node, strides: int, hyperparams: Hyperparams) -> Node:
    """Adds a block's input, projected where the shape changes (option B of section 3.3)."""
    if strides != 1 or x.channels != y.channels:
        x = conv_bn(b, x, y.channels, 1, hyperparams, strides=strides, name="shortcut")
    return b.activation(b.add(x, y, name="add"), "relu", name="relu")


def from_proto(
    b: Builder,
    image: Node,
    proto: architecture_pb2.ResNet,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    hyperparams: Hyperparams | None = None,
) -> BackboneFeatures:
    """Builds `resnet` as an Architecture describes it."""
    return resnet(
        b,
        image,
        depth=proto.depth,
        groups=proto.groups,
        width_per_group=proto.width_per_group,
        strides_in_1x1=proto.strides_in_1x1,
        depth_multiplier=depth_multiplier,
        min_depth=min_depth,
        hyperparams=hyperparams or TPU_DETECTION,
    )


def last_stage(
    b: Builder,
    x: Node,
    proto: architecture_pb2.ResNet,
    *,
    strides: int,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    hyperparams: Hyperparams | None = None,
) -> Node:
    """Builds the stage that makes level 5, alone: of the features of a region in place of level 4.

    Args:
      strides: of its first block; 2 in a network for images.
    """
    design = _Design(
        proto.depth,
        proto.groups,
        proto.width_per_group,
        proto.strides_in_1x1,
        depth_multiplier,
        min_depth,
    )
    return _stage(b, x, MAX_LEVEL, strides, design, hyperparams or TPU_DETECTION)

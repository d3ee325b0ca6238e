"""The MnasFPN head (Chen et al., "MnasFPN: Learning Latency-aware Pyramid Architecture for Object
Detection on Mobile Devices", 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

from mnasdet.networks.blocks import (
    conv_bn,
    global_pooling,
    normalized,
    scaled_channels,
    separable_conv,
)
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import BackboneFeatures
from mnasdet.networks.hyperparams import HE_NORMAL, BatchNorm, Hyperparams, Initializer, Kernel
from mnasdet.protos import architecture_pb2

# √(2 / 9) / 0.88: He's deviation for a 3x3 depthwise kernel, made up for the cut at two deviations.
# The OD API states the number, also for larger kernels.
_SEPARABLE = Initializer("truncated_normal", 0.536)

# The hyper-parameters of the OD API's extractor for the head; slim's L2 of 1e-4 halved for Keras.
EXTRACTOR = Hyperparams(
    kernel=Kernel(HE_NORMAL, 5e-5),
    depthwise_kernel=Kernel(_SEPARABLE, 5e-5),
    normalizer=BatchNorm(momentum=0.99, epsilon=0.01),
)


@dataclass(frozen=True)
class Block:
    """One block of a cell (figure 1).

    Attributes:
      inputs: indices of the merged features: the cell's inputs from the finest level on, then the
        blocks in their order.
      level: of the merged feature, which has stride 2^level.
      expanded_channels: F, channels of the merged feature.
      kernel_size: of the depthwise convolution after the merge.
      merge: "add", or "squeeze_excite" for two inputs.
    """

    inputs: tuple[int, ...]
    level: int
    expanded_channels: int
    kernel_size: int = 3
    merge: str = "add"


# Figure 2, with the widths of the OD API's ssd_mobilenet_v2_mnasfpn.
PUBLISHED_CELL = (
    Block((1, 2), 4, 256),
    Block((0, 4), 3, 128),
    Block((5, 4), 4, 128),
    Block((4, 3), 5, 128, kernel_size=5),
    Block((4, 3), 6, 96),
)


def mnasfpn(
    b: Builder,
    features: Sequence[Node],
    *,
    blocks: Sequence[Block] = PUBLISHED_CELL,
    channels: int = 48,
    repeats: int = 4,
    min_level: int = 3,
    max_level: int = 6,
    size_dependent_ordering: bool = True,
    cell_residual: bool = True,
    hyperparams: Hyperparams = EXTRACTOR,
    exits: list[list[Node]] | None = None,
) -> list[Node]:
    """Refines backbone features by a repeated cell.

    Args:
      features: from `min_level` on, each half the size of the one before. Missing coarse levels
        are made from the last.
      blocks: the cell; its last blocks, one a level, are its outputs.
      channels: C, of every output.
      repeats: how often the cell is applied, each time with its own weights.
      size_dependent_ordering: down-sample before the 1x1 convolution instead of after it (3.2).
      cell_residual: add the cell's input to the output of the same shape (3.1).
      exits: takes the features after every repeat.

    Returns:
      One feature a level from `min_level` to `max_level`, (height, width, channels).
    """
    features = list(features)
    while len(features) < max_level - min_level + 1:
        level = min_level + len(features)
        features.append(_coarser(b, features[-1], channels, hyperparams, f"c{level}"))
    for repeat in range(repeats):
        with b.scope(f"cell_{repeat}"):
            features = _cell(
                b,
                features,
                blocks,
                channels,
                min_level,
                size_dependent_ordering,
                cell_residual,
                hyperparams,
            )
        if exits is not None:
            exits.append(features)
    return features


def _coarser(b: Builder, x: Node, channels: int, hyperparams: Hyperparams, name: str) -> Node:
    """Makes the next level, half the size. The OD API leaves this convolution without L2."""
    x = b.max_pool(x, 3, strides=2, name=f"{name}/max_pool")
    kernel = replace(hyperparams.kernel, l2=0.0)
    x = b.conv2d(x, channels, 1, kernel=kernel, name=f"{name}/conv")
    return normalized(b, x, hyperparams, name)


def _cell(
    b: Builder,
    inputs: list[Node],
    blocks: Sequence[Block],
    channels: int,
    min_level: int,
    size_dependent_ordering: bool,
    cell_residual: bool,
    hyperparams: Hyperparams,
) -> list[Node]:
    features = list(inputs)
    levels = [min_level + i for i in range(len(inputs))]
    sizes = {level: node.size for level, node in zip(levels, inputs, strict=True)}
    for index, block in enumerate(blocks, start=len(inputs)):
        with b.scope(f"block_{index}"):
            merged = _merge(
                b,
                [(features[i], levels[i]) for i in block.inputs],
                block,
                sizes[block.level],
                size_dependent_ordering,
                hyperparams,
            )
            x = b.activation(merged, "relu6", name="relu6")
            x = separable_conv(b, x, channels, block.kernel_size, hyperparams, name="separable")
            features.append(normalized(b, x, hyperparams, "separable"))
        levels.append(block.level)
    # Only where shapes agree: in the first cell the backbone's features have other widths, so that
    # only the level made from the last one has a residual, as in the public code.
    outputs = dict(zip(levels[-len(inputs) :], features[-len(inputs) :], strict=True))
    return [
        b.add(outputs[level], x, name=f"residual_{level}")
        if cell_residual and outputs[level].shape == x.shape
        else outputs[level]
        for level, x in zip(levels, inputs, strict=False)
    ]


def _merge(
    b: Builder,
    inputs: list[tuple[Node, int]],
    block: Block,
    size: tuple[int, int],
    size_dependent_ordering: bool,
    hyperparams: Hyperparams,
) -> Node:
    resampled = [
        _resample(b, x, level, block, size, size_dependent_ordering, hyperparams, f"input_{place}")
        for place, (x, level) in enumerate(inputs)
    ]
    if block.merge == "add":
        places = iter(range(len(resampled)))
        return reduce(lambda x, y: b.add(x, y, name=f"merge_{next(places)}"), resampled)
    return global_pooling(b, resampled, [level for _, level in inputs])


def _resample(
    b: Builder,
    x: Node,
    level: int,
    block: Block,
    size: tuple[int, int],
    size_dependent_ordering: bool,
    hyperparams: Hyperparams,
    name: str,
) -> Node:
    """Brings a feature to the block's level and F channels.

    The 1x1 convolution runs at the smaller of the two sizes, where it is cheaper (section 3.2).
    """

    def pool(x: Node) -> Node:
        if level >= block.level:
            return x
        # 3x3 at every stride, as in the public code; the paper's cost model has k x k.
        return b.max_pool(x, 3, strides=2 ** (block.level - level), name=f"{name}/max_pool")

    if size_dependent_ordering:
        x = pool(x)
    # Always a convolution, even where the widths agree: so does the public code (the paper says "as
    # needed").
    x = conv_bn(b, x, block.expanded_channels, 1, hyperparams, name=name)
    if not size_dependent_ordering:
        x = pool(x)
    return b.upsample(x, size, name=f"{name}/upsample")


def from_proto(
    b: Builder,
    features: BackboneFeatures,
    proto: architecture_pb2.MnasFpn,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 16,
    hyperparams: Hyperparams | None = None,
) -> list[list[Node]]:
    """Builds `mnasfpn` as an Architecture describes it: the features after every repeat.

    The multiplier scales C and every F.
    """

    def width(channels: int) -> int:
        return scaled_channels(channels, depth_multiplier, min_depth)

    exits: list[list[Node]] = []
    mnasfpn(
        b,
        features.from_level(proto.min_level),
        blocks=[
            Block(
                tuple(block.input),
                block.level,
                width(block.expanded_channels),
                block.kernel_size,
                architecture_pb2.MnasFpn.Merge.Name(block.merge).lower(),
            )
            for block in proto.block
        ],
        channels=width(proto.channels),
        repeats=proto.repeats,
        min_level=proto.min_level,
        max_level=proto.max_level,
        size_dependent_ordering=proto.size_dependent_ordering,
        cell_residual=proto.cell_residual,
        hyperparams=hyperparams or EXTRACTOR,
        exits=exits,
    )
    return exits

"""NAS-FPN (Ghiasi et al., "NAS-FPN: Learning Scalable Feature Pyramid Architecture for Object
Detection", 2019). Where the paper leaves a choice, tensorflow/tpu's detection models decide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mnasdet.networks.blocks import global_pooling, normalized, round_channels, separable_conv
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import BackboneFeatures
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, Initializer, Kernel
from mnasdet.protos import architecture_pb2

_GLOROT = Initializer("uniform", scale=1.0, mode="fan_avg")

# Section 4.1 and tensorflow/tpu; the weight decay of 1e-4, like slim's, halved for Keras.
PUBLISHED = Hyperparams(
    kernel=Kernel(_GLOROT, 5e-5),
    depthwise_kernel=Kernel(_GLOROT, 5e-5),
    normalizer=BatchNorm(momentum=0.997, epsilon=1e-4),
    activation="relu",
)


@dataclass(frozen=True)
class MergingCell:
    """One merging cell (figure 3).

    Attributes:
      inputs: indices of the two merged features: the pyramid's inputs from the finest level on,
        then the cells in their order.
      level: of the merged feature, which has stride 2^level.
      op: "sum" or "global_pooling" (figure 4).
    """

    inputs: tuple[int, int]
    level: int
    op: str = "sum"


# Figure 6: two cells inside, then the outputs.
PUBLISHED_CELLS = (
    MergingCell((1, 3), 4, "global_pooling"),
    MergingCell((1, 5), 4),
    MergingCell((0, 6), 3),
    MergingCell((6, 7), 4),
    MergingCell((7, 8), 5, "global_pooling"),
    MergingCell((6, 9), 7, "global_pooling"),
    MergingCell((9, 10), 6, "global_pooling"),
)


def nas_fpn(
    b: Builder,
    features: Sequence[Node],
    *,
    cells: Sequence[MergingCell] = PUBLISHED_CELLS,
    channels: int = 256,
    repeats: int = 7,
    min_level: int = 3,
    max_level: int = 7,
    separable: bool = False,
    drop_block_keep_probability: float = 1.0,
    drop_block_size: int = 3,
    hyperparams: Hyperparams = PUBLISHED,
    exits: list[list[Node]] | None = None,
) -> list[Node]:
    """Refines backbone features by a stack of pyramid networks (section 3.1).

    Args:
      features: from `min_level` on, each half the size of the one before. Missing coarse levels
        are pooled from the last.
      cells: of one pyramid network; the last, one a level, are its outputs.
      channels: of every feature.
      repeats: how many pyramid networks are stacked, each with its own weights.
      separable: depthwise separable 3x3 convolutions, NAS-FPNLite's.
      drop_block_keep_probability: share of the units kept in training, 1 for all; blocks have
        `drop_block_size` units a side (section 4.4).
      exits: takes the features after every repeat.

    Returns:
      One feature a level from `min_level` to `max_level`, (height, width, channels).
    """

    def layer(x: Node) -> Node:
        """Adds the layers after a merge: activation, convolution, normalisation, DropBlock."""
        x = b.activation(x, hyperparams.activation, name=hyperparams.activation)
        x = _conv3x3(b, x, separable, hyperparams)
        x = normalized(b, x, hyperparams, "conv")
        return b.drop_block(x, drop_block_keep_probability, drop_block_size, name="drop_block")

    features = [
        _project(b, x, channels, hyperparams, f"p{level}")
        for level, x in enumerate(features, start=min_level)
    ]
    # Section 3.1: the levels above C5 are pooled, and have no weights.
    for level in range(min_level + len(features), max_level + 1):
        features.append(b.max_pool(features[-1], 2, strides=2, name=f"p{level}/max_pool"))
    for repeat in range(repeats):
        with b.scope(f"repeat_{repeat}"):
            features = _pyramid_network(b, features, cells, min_level, layer)
        if exits is not None:
            exits.append(features)
    return features


def _project(b: Builder, x: Node, channels: int, hyperparams: Hyperparams, name: str) -> Node:
    """Brings a feature to the pyramid's width, linear; a feature that has it stays as it is."""
    if x.channels == channels:
        return x
    x = b.conv2d(
        x,
        channels,
        1,
        use_bias=True,
        kernel=hyperparams.kernel,
        name=f"{name}/conv",
    )
    return normalized(b, x, hyperparams, name)


def _conv3x3(b: Builder, x: Node, separable: bool, hyperparams: Hyperparams) -> Node:
    """Adds a 3x3 convolution with a bias before its normalisation, as tensorflow/tpu does."""
    if separable:
        return separable_conv(b, x, x.channels, 3, hyperparams, use_bias=True, name="conv")
    return b.conv2d(
        x,
        x.channels,
        3,
        use_bias=True,
        kernel=hyperparams.kernel,
        name="conv",
    )


def _pyramid_network(
    b: Builder,
    inputs: list[Node],
    cells: Sequence[MergingCell],
    min_level: int,
    layer: Callable[[Node], Node],
) -> list[Node]:
    features = list(inputs)
    levels = [min_level + i for i in range(len(inputs))]
    sizes = {level: node.size for level, node in zip(levels, inputs, strict=True)}
    first_output = len(cells)  # There are as many outputs as inputs.
    unused = set(range(len(inputs)))
    for index, cell in enumerate(cells, start=len(inputs)):
        with b.scope(f"cell_{index}"):
            x = _merge(b, [(features[i], levels[i]) for i in cell.inputs], cell, sizes[cell.level])
            unused -= set(cell.inputs)
            if index >= first_output:
                # Nothing is lost: an output takes in the features of its level that no cell has
                # used so far. The paper does not say when; tensorflow/tpu does it before the
                # activation.
                left_over = [i for i in sorted(unused) if levels[i] == cell.level]
                for i in left_over:
                    x = b.add(x, features[i], name=f"left_over_{i}")
                unused -= set(left_over)
            features.append(layer(x))
        levels.append(cell.level)
        unused.add(index)
    outputs = dict(zip(levels[first_output:], features[first_output:], strict=True))
    return [outputs[level] for level in sorted(outputs)]


def _merge(
    b: Builder, inputs: list[tuple[Node, int]], cell: MergingCell, size: tuple[int, int]
) -> Node:
    resampled = [
        _resample(b, x, level, cell.level, size, f"input_{place}")
        for place, (x, level) in enumerate(inputs)
    ]
    if cell.op == "sum":
        return b.add(*resampled, name="merge")
    return global_pooling(b, resampled, [level for _, level in inputs])


def _resample(
    b: Builder, x: Node, level: int, target: int, size: tuple[int, int], name: str
) -> Node:
    if level < target:
        # The window is the stride, so that every pixel is in exactly one maximum.
        stride = 2 ** (target - level)
        return b.max_pool(x, stride, strides=stride, name=f"{name}/max_pool")
    return b.upsample(x, size, name=f"{name}/upsample")


def from_proto(
    b: Builder,
    features: BackboneFeatures,
    proto: architecture_pb2.NasFpn,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 16,
    hyperparams: Hyperparams | None = None,
) -> list[list[Node]]:
    """Builds `nas_fpn` as an Architecture describes it: the features after every repeat."""
    channels = proto.channels
    if depth_multiplier != 1.0:
        channels = round_channels(channels * depth_multiplier, min_depth)
    exits: list[list[Node]] = []
    nas_fpn(
        b,
        features.from_level(proto.min_level),
        cells=[
            MergingCell(
                (cell.input[0], cell.input[1]),
                cell.level,
                architecture_pb2.NasFpn.Op.Name(cell.op).lower(),
            )
            for cell in proto.cell
        ],
        channels=channels,
        repeats=proto.repeats,
        min_level=proto.min_level,
        max_level=proto.max_level,
        separable=proto.separable,
        drop_block_keep_probability=proto.drop_block_keep_probability,
        drop_block_size=proto.drop_block_size,
        hyperparams=hyperparams or PUBLISHED,
        exits=exits,
    )
    return exits

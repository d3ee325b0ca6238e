"""AmoebaNet-D (Real et al., "Regularized Evolution for Image Classifier Architecture Search",
2019), the cells as in tensorflow/tpu, models/official/amoeba_net.

Which N, F and features the detectors with this backbone use was never published. Chosen here: the
feature of a level is the output of the last cell of that stride, as it is, before a ReLU. With
these features, N = 24 and F = 208 give the row of AmoebaNet with FPN in NAS-FPN's table 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mnasdet.networks.blocks import conv_bn, round_channels
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import BackboneFeatures
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, Initializer, Kernel
from mnasdet.protos import architecture_pb2

_STEM_CHANNELS = 32
_GROUPS = 3

# The smallest unit of a cell's width: the stem's first cell has a quarter of F filters, and its
# bottlenecks have a quarter of that.
_FILTERS_DIVISOR = 16

_FAN_OUT = Initializer("truncated_normal", scale=2.0, mode="fan_out")

# As in tensorflow/tpu; its L2 of 4e-5 halved for Keras.
PUBLISHED = Hyperparams(
    kernel=Kernel(_FAN_OUT, 2e-5),
    normalizer=BatchNorm(momentum=0.9997, epsilon=0.001),
)


@dataclass(frozen=True)
class _Cell:
    """A cell. State 0 is its input, state 1 the output of the cell before that.

    Attributes:
      additions: the states 2 to 6: each the sum of two operations on earlier states.
      concatenated: the states that make the cell's output.
      strides: of operations on the states 0 and 1.
    """

    additions: tuple[tuple[tuple[int, str], tuple[int, str]], ...]
    concatenated: tuple[int, ...]
    strides: int = 1


_NORMAL = _Cell(
    (
        ((1, "conv_1x1"), (1, "max_pool_3x3")),
        ((1, "identity"), (0, "conv_1x7_7x1")),
        ((0, "conv_1x1"), (0, "conv_1x7_7x1")),
        ((2, "max_pool_3x3"), (2, "identity")),
        ((1, "avg_pool_3x3"), (5, "conv_1x1")),
    ),
    (0, 3, 4, 6),
)
_REDUCTION = _Cell(
    (
        ((0, "max_pool_2x2"), (0, "max_pool_3x3")),
        ((2, "identity"), (1, "conv_3x3")),
        ((2, "conv_1x7_7x1"), (2, "max_pool_3x3")),
        ((3, "identity"), (1, "max_pool_2x2")),
        ((2, "avg_pool_3x3"), (3, "conv_1x1")),
    ),
    (4, 5, 6),
    strides=2,
)


def amoebanet_d(
    b: Builder,
    image: Node,
    *,
    num_cells: int = 18,
    filters: int = 256,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    hyperparams: Hyperparams = PUBLISHED,
) -> BackboneFeatures:
    """Builds AmoebaNet-D (N, F). Its levels 2 to 5 have 3/4, 4, 8 and 16 times F channels.

    The stem and two reduction cells of F/4 and F/2 filters lead to stride 8; there are three
    groups of normal cells, with a reduction cell before the second and the third. Dropped paths,
    a regulariser of the original's training, are not part of it.

    Args:
      image: (height, width, 3).
      num_cells: N, normal cells in all three groups.
      filters: F, of the first group, doubled in each further one.
      depth_multiplier: factor on the stem and on F, rounded by `round_channels`; as given for 1.
      min_depth: the least of the scaled widths.
    """

    def width(channels: int, divisor: int = 8) -> int:
        # A quarter of a quarter of F has to be whole, so F is rounded to 16 and not to 8.
        if depth_multiplier == 1.0:
            return channels
        return round_channels(channels * depth_multiplier, max(min_depth, divisor), divisor)

    previous: Node | None = None
    x = conv_bn(b, image, width(_STEM_CHANNELS), 3, hyperparams, strides=2, name="stem")
    level, levels = 1, {}
    for name, cell, cell_filters in _plan(num_cells, width(filters, _FILTERS_DIVISOR)):
        level += cell.strides == 2
        with b.scope(name):
            previous, x = x, _apply(b, x, previous, cell, cell_filters, hyperparams)
        levels[level] = x
    # Cells end linear and start with a ReLU, so a reader outside of a cell needs one.
    return BackboneFeatures(levels, b.activation(x, "relu", name="relu"))


def _plan(num_cells: int, filters: int) -> Iterator[tuple[str, _Cell, int]]:
    """Yields the cells in order: name, kind, filters."""
    yield "stem_cell_1", _REDUCTION, filters // 4
    yield "stem_cell_2", _REDUCTION, filters // 2
    for group in range(_GROUPS):
        scaled = filters * 2**group
        if group > 0:
            yield f"reduction_cell_{group}", _REDUCTION, scaled
        # Rounded in every group, so that an N that 3 does not divide still gives N cells.
        for index in range(num_cells * group // _GROUPS, num_cells * (group + 1) // _GROUPS):
            yield f"cell_{index + 1}", _NORMAL, scaled


def _apply(
    b: Builder,
    x: Node,
    previous: Node | None,
    cell: _Cell,
    filters: int,
    hyperparams: Hyperparams,
) -> Node:
    """Returns a cell's output. The first cell has no previous one and takes its input twice."""
    states = [
        _relu_conv_bn(b, x, filters, 1, hyperparams, name="input"),
        x if previous is None else _matched(b, previous, x.size, filters, hyperparams),
    ]
    for index, pair in enumerate(cell.additions, start=2):
        with b.scope(f"state_{index}"):
            first, second = (
                _operation(
                    b,
                    states[state],
                    operation,
                    cell.strides if state < 2 else 1,
                    filters,
                    hyperparams,
                    f"operation_{place}",
                )
                for place, (state, operation) in enumerate(pair)
            )
            states.append(b.add(first, second, name="add"))
    return b.concat([states[index] for index in cell.concatenated], axis=-1, name="concat")


def _matched(
    b: Builder, previous: Node, size: tuple[int, int], filters: int, hyperparams: Hyperparams
) -> Node:
    """Returns the previous output in size and width of the cell's input.

    The original halves the size by two 1x1 convolutions on every second pixel, the second shifted
    by one. An average of 2x2 pixels before one convolution has as many weights and
    multiply-adds.
    """
    if previous.size == size and previous.channels == filters:
        return previous
    x = b.activation(previous, "relu", name="previous/relu")
    if previous.size != size:
        x = b.avg_pool(x, 2, strides=2, name="previous/avg_pool")
    return conv_bn(b, x, filters, 1, hyperparams, name="previous")


def _operation(
    b: Builder,
    x: Node,
    operation: str,
    strides: int,
    filters: int,
    hyperparams: Hyperparams,
    name: str,
) -> Node:
    """Applies one operation of an addition to its input; the result has `filters` channels."""
    match operation:
        case "identity":
            return x
        case "conv_1x1":
            return _relu_conv_bn(b, x, filters, 1, hyperparams, name=name)
        case "conv_3x3":
            return _bottleneck(b, x, [3], strides, filters, hyperparams, name)
        case "conv_1x7_7x1":
            return _bottleneck(b, x, [(1, 7), (7, 1)], strides, filters, hyperparams, name)
    kind, size = operation[: len("max_pool")], int(operation[-1])
    pool = {"max_pool": b.max_pool, "avg_pool": b.avg_pool}[kind]
    x = pool(x, size, strides=strides, name=f"{name}/{kind}")
    # A pool keeps the width of its input; states are added, so they need one width.
    return x if x.channels == filters else conv_bn(b, x, filters, 1, hyperparams, name=name)


def _bottleneck(
    b: Builder,
    x: Node,
    kernel_sizes: Sequence[int | tuple[int, int]],
    strides: int,
    filters: int,
    hyperparams: Hyperparams,
    name: str,
) -> Node:
    """Adds convolutions between 1x1 convolutions to a quarter of the filters and back.

    The first of the convolutions between them strides.
    """
    with b.scope(name):
        x = _relu_conv_bn(b, x, filters // 4, 1, hyperparams, name="reduce")
        for index, kernel_size in enumerate(kernel_sizes, start=1):
            x = _relu_conv_bn(
                b,
                x,
                filters // 4,
                kernel_size,
                hyperparams,
                strides=strides if index == 1 else 1,
                name=f"layer_{index}",
            )
        return _relu_conv_bn(b, x, filters, 1, hyperparams, name="expand")


def _relu_conv_bn(
    b: Builder,
    x: Node,
    filters: int,
    kernel_size: int | tuple[int, int],
    hyperparams: Hyperparams,
    *,
    strides: int = 1,
    name: str,
) -> Node:
    x = b.activation(x, "relu", name=f"{name}/relu")
    return conv_bn(b, x, filters, kernel_size, hyperparams, strides=strides, name=name)


def from_proto(
    b: Builder,
    image: Node,
    proto: architecture_pb2.AmoebaNetD,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    hyperparams: Hyperparams | None = None,
) -> BackboneFeatures:
    """Builds `amoebanet_d` as an Architecture describes it."""
    return amoebanet_d(
        b,
        image,
        num_cells=proto.num_cells,
        filters=proto.filters,
        depth_multiplier=depth_multiplier,
        min_depth=min_depth,
        hyperparams=hyperparams or PUBLISHED,
    )

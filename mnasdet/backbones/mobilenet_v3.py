"""MobileNetV3 (Howard et al., "Searching for MobileNetV3", 2019)."""

from __future__ import annotations

from dataclasses import dataclass

from mnasdet.networks.blocks import conv_bn, depthwise_conv_bn, round_channels, squeeze_excite
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import MAX_LEVEL, BackboneFeatures
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, Initializer, Kernel
from mnasdet.protos import architecture_pb2


@dataclass(frozen=True)
class _Bottleneck:
    """A row of tables 1 and 2."""

    kernel_size: int
    expanded_channels: int
    channels: int
    activation: str
    strides: int
    squeeze_excite: bool = False


_STEM_CHANNELS = 16

# Tables 1 and 2: the bottlenecks, and the channels of the last 1x1 convolution.
_SIZES = {
    "large": (
        [
            _Bottleneck(3, 16, 16, "relu", 1),
            _Bottleneck(3, 64, 24, "relu", 2),
            _Bottleneck(3, 72, 24, "relu", 1),
            _Bottleneck(5, 72, 40, "relu", 2, squeeze_excite=True),
            _Bottleneck(5, 120, 40, "relu", 1, squeeze_excite=True),
            _Bottleneck(5, 120, 40, "relu", 1, squeeze_excite=True),
            _Bottleneck(3, 240, 80, "hard_swish", 2),
            _Bottleneck(3, 200, 80, "hard_swish", 1),
            _Bottleneck(3, 184, 80, "hard_swish", 1),
            _Bottleneck(3, 184, 80, "hard_swish", 1),
            _Bottleneck(3, 480, 112, "hard_swish", 1, squeeze_excite=True),
            _Bottleneck(3, 672, 112, "hard_swish", 1, squeeze_excite=True),
            _Bottleneck(5, 672, 160, "hard_swish", 2, squeeze_excite=True),
            _Bottleneck(5, 960, 160, "hard_swish", 1, squeeze_excite=True),
            _Bottleneck(5, 960, 160, "hard_swish", 1, squeeze_excite=True),
        ],
        960,
    ),
    "small": (
        [
            _Bottleneck(3, 16, 16, "relu", 2, squeeze_excite=True),
            _Bottleneck(3, 72, 24, "relu", 2),
            _Bottleneck(3, 88, 24, "relu", 1),
            _Bottleneck(5, 96, 40, "hard_swish", 2, squeeze_excite=True),
            _Bottleneck(5, 240, 40, "hard_swish", 1, squeeze_excite=True),
            _Bottleneck(5, 240, 40, "hard_swish", 1, squeeze_excite=True),
            _Bottleneck(5, 120, 48, "hard_swish", 1, squeeze_excite=True),
            _Bottleneck(5, 144, 48, "hard_swish", 1, squeeze_excite=True),
            _Bottleneck(5, 288, 96, "hard_swish", 2, squeeze_excite=True),
            _Bottleneck(5, 576, 96, "hard_swish", 1, squeeze_excite=True),
            _Bottleneck(5, 576, 96, "hard_swish", 1, squeeze_excite=True),
        ],
        576,
    ),
}

# Section 6.1.1, its L2 of 1e-5 halved for Keras; first weights and L2 on all but depthwise kernels
# as in slim.
PUBLISHED = Hyperparams(
    kernel=Kernel(Initializer("truncated_normal", 0.09), 5e-6),
    depthwise_kernel=Kernel(Initializer("truncated_normal", 0.09)),
    normalizer=BatchNorm(momentum=0.99, epsilon=0.001),
)


def mobilenet_v3(
    b: Builder,
    image: Node,
    *,
    size: str = "large",
    halved: bool = False,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    hyperparams: Hyperparams = PUBLISHED,
) -> BackboneFeatures:
    """Builds MobileNetV3.

    Its levels are the linear outputs of the last bottleneck of each stride. Levels 2 to 5 have 24,
    40, 112 and 160 channels; of the small one 16, 24, 48 and 96.

    Args:
      image: (height, width, 3).
      size: "large" or "small".
      halved: half the channels of all outputs at stride 32, as for detection (section 6.3).
        The first expansion there, made at stride 16, keeps its width.
      depth_multiplier: factor on every width, rounded by `round_channels`. Expansions follow from
        the rounded width of what they expand.
      min_depth: the least width.
    """
    bottlenecks, last_channels = _SIZES[size]

    def width(channels: int, level: int) -> int:
        # Section 6.3 halves C5 because its channels are redundant for the 90 classes of COCO; the
        # expansion that makes it is at stride 16 and stays.
        if halved and level == MAX_LEVEL:
            channels //= 2
        return round_channels(channels * depth_multiplier, min_depth)

    level, levels, expansion = 1, {}, None
    stem = width(_STEM_CHANNELS, level)
    x = conv_bn(b, image, stem, 3, hyperparams, strides=2, activation="hard_swish", name="layer_1")
    table_channels, index = _STEM_CHANNELS, 1
    for bottleneck in bottlenecks:
        index += 1
        level += bottleneck.strides == 2
        # The table gives expanded widths; a scaled network expands the rounded input by the same
        # ratio, as slim does.
        ratio = bottleneck.expanded_channels / table_channels
        with b.scope(f"layer_{index}"):
            expanded = _expand(b, x, ratio, bottleneck.activation, hyperparams)
            if bottleneck.strides == 2 and level == MAX_LEVEL:
                expansion = expanded
            channels = width(bottleneck.channels, level)
            x = _project(b, x, expanded, bottleneck, channels, hyperparams)
        table_channels = bottleneck.channels
        levels[level] = x
    last = conv_bn(
        b,
        x,
        width(last_channels, MAX_LEVEL),
        1,
        hyperparams,
        activation="hard_swish",
        name=f"layer_{index + 1}",
    )
    return BackboneFeatures({level: levels[level] for level in range(2, 6)}, last, expansion)


def _expand(b: Builder, x: Node, ratio: float, activation: str, hyperparams: Hyperparams) -> Node:
    if ratio == 1:
        return x
    channels = round_channels(x.channels * ratio)
    return conv_bn(b, x, channels, 1, hyperparams, activation=activation, name="expand")


def _project(
    b: Builder,
    x: Node,
    expanded: Node,
    bottleneck: _Bottleneck,
    channels: int,
    hyperparams: Hyperparams,
) -> Node:
    """Adds a bottleneck's layers after its expansion.

    They are a depthwise convolution, squeeze and excitation with a hard gate (section 5.3) and a
    linear 1x1 projection. The bottleneck's input is added where it fits.
    """
    y = depthwise_conv_bn(
        b,
        expanded,
        bottleneck.kernel_size,
        hyperparams,
        strides=bottleneck.strides,
        activation=bottleneck.activation,
        name="depthwise",
    )
    if bottleneck.squeeze_excite:
        # Rounded to 8, unlike MnasNet's.
        squeezed = round_channels(expanded.channels / 4)
        y = squeeze_excite(b, y, squeezed, hyperparams, gate="hard_sigmoid", name="squeeze_excite")
    y = conv_bn(b, y, channels, 1, hyperparams, name="project")
    fits = bottleneck.strides == 1 and x.channels == channels
    return b.add(x, y, name="add") if fits else y


def from_proto(
    b: Builder,
    image: Node,
    proto: architecture_pb2.MobileNetV3,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    hyperparams: Hyperparams | None = None,
) -> BackboneFeatures:
    """Builds `mobilenet_v3` as an Architecture describes it."""
    return mobilenet_v3(
        b,
        image,
        size=architecture_pb2.MobileNetV3.Size.Name(proto.size).lower(),
        halved=proto.halved,
        depth_multiplier=depth_multiplier,
        min_depth=min_depth,
        hyperparams=hyperparams or PUBLISHED,
    )

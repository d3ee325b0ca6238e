"""Feature pyramid networks (Lin et al., "Feature Pyramid Networks for Object Detection", 2017): the
paper's own for two stages; RetinaNet's, and the OD API's with its light FPNLite, for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mnasdet.networks.blocks import conv_bn, normalized, separable_conv
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import BackboneFeatures
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, Initializer, Kernel
from mnasdet.protos import architecture_pb2

_GLOROT = Initializer("uniform", scale=1.0, mode="fan_avg")
_NORMAL = Initializer("normal", 0.01)

# tensorflow/tpu's RetinaNet; its weight decay of 1e-4, like slim's, halved for Keras.
RETINANET = Hyperparams(
    kernel=Kernel(_GLOROT, 5e-5),
    depthwise_kernel=Kernel(_GLOROT, 5e-5),
    normalizer=BatchNorm(momentum=0.997, epsilon=1e-4),
    activation="relu",
)

# The OD API's MobileNetV2 FPNLite configs; slim's L2 of 4e-5 halved for Keras, none on depthwise
# kernels.
OBJECT_DETECTION_API = Hyperparams(
    kernel=Kernel(_NORMAL, 2e-5),
    depthwise_kernel=Kernel(_NORMAL),
    normalizer=BatchNorm(momentum=0.997, epsilon=0.001),
    activation="relu6",
)

# mmdetection's two-stage detectors: no normalisation and no activation; its weight decay of 1e-4
# halved for Keras.
TWO_STAGE = Hyperparams(kernel=Kernel(_GLOROT, 5e-5), normalizer=None, activation="linear")

_VARIANTS = {"retinanet": RETINANET, "object_detection_api": OBJECT_DETECTION_API}


def fpn(
    b: Builder,
    features: Sequence[Node],
    *,
    min_level: int = 3,
    max_level: int = 7,
    channels: int = 256,
    separable: bool = False,
    variant: str = "retinanet",
    hyperparams: Hyperparams | None = None,
) -> list[Node]:
    """Carries coarse features down into finer ones, and goes on to coarser levels.

    Args:
      features: of the backbone, from `min_level` on, each half the size of the one before.
      channels: of every output.
      separable: depthwise separable 3x3 convolutions, FPNLite's.
      variant: "retinanet" (Lin et al., "Focal Loss for Dense Object Detection", 2017, section 4:
        a 3x3 convolution on every level, all levels normalised at the end and none activated) or
        "object_detection_api" (3x3 convolutions, normalised and activated, on all levels but the
        coarsest of the backbone). `two_stage_fpn` builds the third one.
      hyperparams: the variant's own by default.

    Returns:
      One feature a level from `min_level` to `max_level`, (height, width, channels).
    """
    hyperparams = hyperparams or _VARIANTS[variant]
    levels = {
        level: _lateral(b, x, channels, hyperparams, f"lateral_{level}")
        for level, x in enumerate(features, start=min_level)
    }
    _add_top_down(b, levels)
    finish = {"retinanet": _retinanet, "object_detection_api": _object_detection_api}[variant]
    return finish(b, levels, max_level, separable, hyperparams)


def _add_top_down(b: Builder, levels: dict[int, Node]) -> None:
    """Adds to every level but the coarsest the one after it, which may be more than an octave
    away."""
    coarsest, *finer = sorted(levels, reverse=True)
    x = levels[coarsest]
    for level in finer:
        x = b.upsample(x, levels[level].size, name=f"top_down_{level}/upsample")
        x = levels[level] = b.add(levels[level], x, name=f"top_down_{level}/add")


def two_stage_fpn(
    b: Builder,
    features: Mapping[int, Node],
    output_levels: Sequence[int],
    *,
    channels: int = 256,
    strided_levels: bool = False,
    hyperparams: Hyperparams = TWO_STAGE,
) -> list[Node]:
    """Carries coarse features down into finer ones, as two-stage detectors do: a 3x3 convolution on
    every level, and nothing after it.

    Levels may be left out: what comes down is up-sampled as far as the next finer level that is
    there (SM-NAS, section 3.2.1).

    Args:
      features: of the backbone, by level.
      output_levels: ascending, each of `features` or coarser than all of them.
      channels: of every output.
      strided_levels: coarser levels are made by 3x3 convolutions of stride 2 as RetinaNet's: from
        the backbone's feature, and with a ReLU before every one but the first (Lin et al., "Focal
        Loss for Dense Object Detection", 2017, section 4). Otherwise they are every other value of
        the level before (Lin et al., 2017, section 4.1).
      hyperparams: with a normalisation or an activation, laterals and outputs are normalised, and
        outputs activated.

    Returns:
      One feature for each of `output_levels`, (height, width, channels).
    """
    levels = {
        level: conv_bn(b, x, channels, 1, hyperparams, name=f"lateral_{level}")
        for level, x in sorted(features.items())
    }
    _add_top_down(b, levels)
    activation = hyperparams.activation
    levels = {
        level: conv_bn(b, x, channels, 3, hyperparams, activation=activation, name=f"p{level}")
        for level, x in levels.items()
    }
    coarsest = max(levels)
    x = features[coarsest] if strided_levels else levels[coarsest]
    for level in range(coarsest + 1, max(output_levels) + 1):
        if not strided_levels:
            x = b.max_pool(x, 1, strides=2, name=f"p{level}/subsample")
        else:
            if level > coarsest + 1 and activation == "linear":
                x = b.activation(x, "relu", name=f"p{level}/relu")
            x = conv_bn(
                b, x, channels, 3, hyperparams, strides=2, activation=activation, name=f"p{level}"
            )
        levels[level] = x
    return [levels[level] for level in output_levels]


def _lateral(b: Builder, x: Node, channels: int, hyperparams: Hyperparams, name: str) -> Node:
    """Adds a 1x1 convolution with a bias and nothing after it."""
    return b.conv2d(
        x,
        channels,
        1,
        use_bias=True,
        kernel=hyperparams.unnormalized.kernel,
        name=f"{name}/conv",
    )


def _retinanet(
    b: Builder,
    levels: dict[int, Node],
    max_level: int,
    separable: bool,
    hyperparams: Hyperparams,
) -> list[Node]:
    backbone_max = max(levels)
    levels = {
        level: _conv3x3(b, x, 1, True, separable, hyperparams, f"p{level}")
        for level, x in levels.items()
    }
    for level in range(backbone_max + 1, max_level + 1):
        x = levels[level - 1]
        # P6 comes from P5 and not from C5, as in tensorflow/tpu; P7 comes from P6 after a ReLU (Lin
        # et al., 2017, section 4).
        if level > backbone_max + 1:
            x = b.activation(x, hyperparams.activation, name=f"p{level}/{hyperparams.activation}")
        levels[level] = _conv3x3(b, x, 2, True, separable, hyperparams, f"p{level}")
    return [normalized(b, x, hyperparams, f"p{level}") for level, x in levels.items()]


def _object_detection_api(
    b: Builder,
    levels: dict[int, Node],
    max_level: int,
    separable: bool,
    hyperparams: Hyperparams,
) -> list[Node]:
    def conv_bn(x: Node, strides: int, name: str) -> Node:
        use_bias = hyperparams.normalizer is None
        x = _conv3x3(b, x, strides, use_bias, separable, hyperparams, name)
        x = normalized(b, x, hyperparams, name)
        return b.activation(x, hyperparams.activation, name=f"{name}/{hyperparams.activation}")

    # The coarsest level of the backbone has nothing added to it, so there is nothing to smooth.
    *finer, coarsest = levels
    smooth = [conv_bn(levels[level], 1, f"p{level}") for level in finer]
    outputs = [*smooth, levels[coarsest]]
    for level in range(coarsest + 1, max_level + 1):
        outputs.append(conv_bn(outputs[-1], 2, f"p{level}"))
    return outputs


def _conv3x3(
    b: Builder,
    x: Node,
    strides: int,
    use_bias: bool,
    separable: bool,
    hyperparams: Hyperparams,
    name: str,
) -> Node:
    if separable:
        return separable_conv(
            b, x, x.channels, 3, hyperparams, strides=strides, use_bias=use_bias, name=name
        )
    return b.conv2d(
        x,
        x.channels,
        3,
        strides=strides,
        use_bias=use_bias,
        kernel=hyperparams.kernel,
        name=f"{name}/conv",
    )


def from_proto(
    b: Builder,
    features: BackboneFeatures,
    proto: architecture_pb2.Fpn,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 16,
    hyperparams: Hyperparams | None = None,
) -> list[list[Node]]:
    """Builds `fpn` as an Architecture describes it.

    The multiplier's product is cut to an integer, not rounded to a multiple of 8, as in the OD API.
    """
    channels = max(int(proto.channels * depth_multiplier), min_depth)
    variant = architecture_pb2.Fpn.Variant.Name(proto.variant).lower()
    if variant == "two_stage":
        taken = [level for level in features.levels if level >= proto.min_level]
        pyramid = two_stage_fpn(
            b,
            {level: features.levels[level] for level in proto.input_level or taken},
            proto.output_level or range(proto.min_level, proto.max_level + 1),
            channels=channels,
            strided_levels=proto.strided_levels,
            hyperparams=hyperparams or TWO_STAGE,
        )
        return [pyramid]
    backbone = features.from_level(proto.min_level)
    if variant == "object_detection_api":
        # The OD API's extractor starts from the last 1x1 convolution, and not from the last
        # bottleneck.
        backbone[-1] = features.last
    pyramid = fpn(
        b,
        backbone,
        min_level=proto.min_level,
        max_level=proto.max_level,
        channels=channels,
        separable=proto.separable,
        variant=variant,
        hyperparams=hyperparams,
    )
    return [pyramid]

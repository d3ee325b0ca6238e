"""Feature pyramid networks (Lin et al., "Feature Pyramid Networks for Object Detection", 2017) as
one-stage detectors use them: RetinaNet's, and the OD API's with its light FPNLite."""

from __future__ import annotations

from collections.abc import Sequence

from mnasdet.networks.blocks import normalized, separable_conv
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
        coarsest of the backbone).
      hyperparams: the variant's own by default.

    Returns:
      One feature a level from `min_level` to `max_level`, (height, width, channels).
    """
    hyperparams = hyperparams or _VARIANTS[variant]
    levels = {
        level: _lateral(b, x, channels, hyperparams, f"lateral_{level}")
        for level, x in enumerate(features, start=min_level)
    }
    for level in range(max(levels) - 1, min_level - 1, -1):
        coarser = b.upsample(
            levels[level + 1], levels[level].size, name=f"top_down_{level}/upsample"
        )
        levels[level] = b.add(levels[level], coarser, name=f"top_down_{level}/add")
    finish = {"retinanet": _retinanet, "object_detection_api": _object_detection_api}[variant]
    return finish(b, levels, max_level, separable, hyperparams)


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
    variant = architecture_pb2.Fpn.Variant.Name(proto.variant).lower()
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
        channels=max(int(proto.channels * depth_multiplier), min_depth),
        separable=proto.separable,
        variant=variant,
        hyperparams=hyperparams,
    )
    return [pyramid]

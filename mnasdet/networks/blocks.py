"""Small compositions that several networks share."""

from __future__ import annotations

from collections.abc import Sequence

from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.hyperparams import GroupNorm, Hyperparams


def round_channels(channels: float, minimum: int = 8, divisor: int = 8) -> int:
    """Returns the nearest multiple of `divisor` by slim's rule.

    It is at least `minimum` and never below 90 % of `channels`.
    """
    rounded = max(minimum, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def scaled_channels(channels: int, multiplier: float, minimum: int) -> int:
    """Returns a width times a depth multiplier.

    A multiplier of 1 leaves published widths as printed: rounding would change those that are no
    multiples of 8.
    """
    return channels if multiplier == 1.0 else round_channels(channels * multiplier, minimum)


def normalized(b: Builder, x: Node, hyperparams: Hyperparams, name: str) -> Node:
    """Normalises a feature as the hyper-parameters say; without a normaliser it stays as it is."""
    norm = hyperparams.normalizer
    if norm is None:
        return x
    if isinstance(norm, GroupNorm):
        return b.group_norm(x, groups=norm.groups, epsilon=norm.epsilon, name=f"{name}/group_norm")
    return b.batch_norm(
        x,
        momentum=norm.momentum,
        epsilon=norm.epsilon,
        center=norm.center,
        scale=norm.scale,
        synchronized=norm.synchronized,
        name=f"{name}/batch_norm",
    )


def conv_bn(
    b: Builder,
    x: Node,
    filters: int,
    kernel_size: int | tuple[int, int],
    hyperparams: Hyperparams,
    *,
    strides: int = 1,
    dilation: int = 1,
    groups: int = 1,
    activation: str = "linear",
    name: str,
) -> Node:
    """Adds a convolution, its normalisation (a bias without it) and an activation."""
    x = b.conv2d(
        x,
        filters,
        kernel_size,
        strides=strides,
        dilation=dilation,
        groups=groups,
        # A normalisation has an offset of its own, which would make a bias redundant.
        use_bias=hyperparams.normalizer is None,
        kernel=hyperparams.kernel,
        name=f"{name}/conv",
    )
    x = normalized(b, x, hyperparams, name)
    return b.activation(x, activation, name=f"{name}/{activation}")


def depthwise_conv_bn(
    b: Builder,
    x: Node,
    kernel_size: int,
    hyperparams: Hyperparams,
    *,
    strides: int = 1,
    dilation: int = 1,
    activation: str = "linear",
    name: str,
) -> Node:
    """Adds a depthwise convolution, its normalisation (a bias without it) and an activation."""
    x = b.depthwise_conv2d(
        x,
        kernel_size,
        strides=strides,
        dilation=dilation,
        use_bias=hyperparams.normalizer is None,
        kernel=hyperparams.depthwise_kernel,
        name=f"{name}/depthwise",
    )
    x = normalized(b, x, hyperparams, name)
    return b.activation(x, activation, name=f"{name}/{activation}")


def separable_conv(
    b: Builder,
    x: Node,
    filters: int,
    kernel_size: int,
    hyperparams: Hyperparams,
    *,
    strides: int = 1,
    use_bias: bool = False,
    bias: float = 0.0,
    name: str,
    shared: bool = False,
) -> Node:
    """Adds a depthwise and then a 1x1 convolution, nothing between them."""
    x = b.depthwise_conv2d(
        x,
        kernel_size,
        strides=strides,
        kernel=hyperparams.depthwise_kernel,
        name=f"{name}/depthwise",
        shared=shared,
    )
    return b.conv2d(
        x,
        filters,
        1,
        use_bias=use_bias,
        bias=bias,
        kernel=hyperparams.kernel,
        name=f"{name}/pointwise",
        shared=shared,
    )


def squeeze_excite(
    b: Builder,
    x: Node,
    squeezed: int,
    hyperparams: Hyperparams,
    *,
    activation: str = "relu",
    gate: str = "sigmoid",
    name: str,
) -> Node:
    """Scales every channel by a gate made from the means of all (Hu et al., 2018).

    Args:
      squeezed: channels between the two 1x1 convolutions, which have a bias and no normalisation.
      gate: the last activation: sigmoid, or hard_sigmoid as in MobileNetV3.
    """
    with b.scope(name):
        y = b.global_avg_pool(x, name="mean")
        for filters, function, part in (
            (squeezed, activation, "squeeze"),
            (x.channels, gate, "excite"),
        ):
            y = b.conv2d(
                y,
                filters,
                1,
                use_bias=True,
                # Without normalisation nothing would undo a standardised kernel's scale, so these
                # are plain.
                kernel=hyperparams.unnormalized.kernel,
                name=f"{part}/conv",
            )
            y = b.activation(y, function, name=f"{part}/{function}")
        return b.multiply(x, y, name="multiply")


def global_pooling(b: Builder, features: Sequence[Node], levels: Sequence[int]) -> Node:
    """Merges two features of one shape as NAS-FPN does (Ghiasi et al., 2019, figure 4).

    The feature of the coarser level, the first of two equals, gates the other by its global
    maximum and is added. The paper does not say which one gates: so does tensorflow/tpu.
    """
    fine, coarse = features if levels[1] > levels[0] else reversed(features)
    gate = b.global_max_pool(coarse, name="gate/global_max_pool")
    gate = b.activation(gate, "sigmoid", name="gate/sigmoid")
    return b.add(coarse, b.multiply(fine, gate, name="gate/multiply"), name="merge")

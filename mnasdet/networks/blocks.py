"""Small compositions that several networks share."""

from __future__ import annotations

from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.hyperparams import Hyperparams


def round_channels(channels: float, minimum: int = 8, divisor: int = 8) -> int:
    """The nearest multiple of `divisor`, at least `minimum` and never below 90 % (slim's rule)."""
    rounded = max(minimum, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def batch_norm(b: Builder, x: Node, hyperparams: Hyperparams, name: str) -> Node:
    return b.batch_norm(
        x,
        momentum=hyperparams.batch_norm_momentum,
        epsilon=hyperparams.batch_norm_epsilon,
        name=f"{name}/batch_norm",
    )


def conv_bn(
    b: Builder,
    x: Node,
    filters: int,
    kernel_size: int,
    hyperparams: Hyperparams,
    *,
    strides: int = 1,
    activation: str = "linear",
    name: str,
) -> Node:
    """Convolution without bias, batch normalisation, activation."""
    x = b.conv2d(
        x,
        filters,
        kernel_size,
        strides=strides,
        initializer=hyperparams.initializer,
        l2=hyperparams.l2,
        name=f"{name}/conv",
    )
    x = batch_norm(b, x, hyperparams, name)
    return b.activation(x, activation, name=f"{name}/{activation}")


def depthwise_conv_bn(
    b: Builder,
    x: Node,
    kernel_size: int,
    hyperparams: Hyperparams,
    *,
    strides: int = 1,
    activation: str = "linear",
    name: str,
) -> Node:
    """Depthwise convolution without bias, batch normalisation, activation."""
    x = b.depthwise_conv2d(
        x,
        kernel_size,
        strides=strides,
        initializer=hyperparams.depthwise_initializer,
        l2=hyperparams.depthwise_l2,
        name=f"{name}/depthwise",
    )
    x = batch_norm(b, x, hyperparams, name)
    return b.activation(x, activation, name=f"{name}/{activation}")


def separable_conv(
    b: Builder,
    x: Node,
    filters: int,
    kernel_size: int,
    hyperparams: Hyperparams,
    *,
    use_bias: bool = False,
    bias: float = 0.0,
    name: str,
    shared: bool = False,
) -> Node:
    """Depthwise, then 1x1 convolution, nothing between them."""
    x = b.depthwise_conv2d(
        x,
        kernel_size,
        initializer=hyperparams.depthwise_initializer,
        l2=hyperparams.depthwise_l2,
        name=f"{name}/depthwise",
        shared=shared,
    )
    return b.conv2d(
        x,
        filters,
        1,
        use_bias=use_bias,
        bias=bias,
        initializer=hyperparams.initializer,
        l2=hyperparams.l2,
        name=f"{name}/pointwise",
        shared=shared,
    )

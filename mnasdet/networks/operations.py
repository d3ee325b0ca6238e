"""Operations as layers: Hit-Detector's (Guo et al., "Hit-Detector: Hierarchical Trinity
Architecture Search for Object Detection", 2020, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

from mnasdet.networks.blocks import conv_bn, depthwise_conv_bn
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, Kernel
from mnasdet.operation_names import Operation

# The released code's: PyTorch's batch normalisation, and a weight decay of 1e-4, halved for Keras.
RELEASED = Hyperparams(
    kernel=Kernel(l2=5e-5),
    depthwise_kernel=Kernel(l2=5e-5),
    normalizer=BatchNorm(momentum=0.9, epsilon=1e-5),
)


def operation(
    b: Builder,
    x: Node,
    op: Operation,
    channels: int,
    hyperparams: Hyperparams,
    *,
    strides: int = 1,
) -> Node:
    """Builds an operation in a scope of its own name.

    "ir" and "sep" add their input where strides and widths allow it. TensorFlow cannot stride a
    dilated convolution, so that one takes all places and then every second of them: the values of
    the strided one, at the cost of all.

    Args:
      channels: of the output.
    """
    subsampled = strides > 1 and op.dilation > 1
    step = {"strides": 1 if subsampled else strides, "dilation": op.dilation}
    # So the candidates of a layer have names of their own, which a derived network keeps.
    with b.scope(str(op)):
        if op.kind == "conv":
            y = conv_bn(
                b, x, channels, op.kernel_size, hyperparams, **step, activation="relu", name="conv"
            )
            return _subsampled(b, y, strides) if subsampled else y
        y = x
        if op.kind == "ir":
            # Also for an expansion of 1, which MobileNetV2 leaves out: the released code keeps it.
            width = x.channels * op.expansion
            y = conv_bn(b, y, width, 1, hyperparams, activation="relu", name="expand")
        y = depthwise_conv_bn(
            b, y, op.kernel_size, hyperparams, **step, activation="relu", name="depthwise"
        )
        y = _subsampled(b, y, strides) if subsampled else y
        y = conv_bn(b, y, channels, 1, hyperparams, name="project")
        return b.add(x, y, name="add") if y.shape == x.shape else y


def _subsampled(b: Builder, x: Node, strides: int) -> Node:
    # A pool over one pixel picks places and computes nothing.
    return b.max_pool(x, 1, strides=strides, name="subsample")


def chosen(
    b: Builder,
    x: Node,
    ops: Sequence[Operation],
    channels: int,
    hyperparams: Hyperparams,
    *,
    strides: int = 1,
) -> Node:
    """Builds a layer that is one of several operations: a choice, unless there is only one."""
    built = [operation(b, x, op, channels, hyperparams, strides=strides) for op in ops]
    return b.choice(built, name="choice")

"""How the layers of one part of a network start, are normalised and regularised."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from mnasdet.protos import architecture_pb2, hyperparams_pb2


@dataclass(frozen=True)
class Initializer:
    """Random first weights around zero.

    Attributes:
      distribution: normal, truncated_normal (cut at two deviations) or uniform.
      stddev: the deviation; 0 takes it from the layer's size as sqrt(scale / fan).
      scale: numerator of that rule (variance scaling): 2 is He's.
      mode: which fan: fan_in, fan_out or fan_avg.
    """

    distribution: str
    stddev: float = 0.0
    scale: float = 2.0
    mode: str = "fan_in"


# He et al., 2015; the defaults of slim's variance_scaling_initializer.
HE_NORMAL = Initializer("truncated_normal")


@dataclass(frozen=True)
class Kernel:
    """How the weights of a convolution start and are regularised.

    Attributes:
      initializer: their first values.
      l2: Keras' coefficient, on the plain sum of squares.
      standardized: whether the weights of every output channel are brought to mean 0 and variance
        1 before they are used (Qiao et al., "Weight Standardization", 2019).
    """

    initializer: Initializer = HE_NORMAL
    l2: float = 0.0
    standardized: bool = False


@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation.

    Attributes:
      momentum: the share of the old moving average that a step keeps.
      epsilon: added to the variance.
      center, scale: whether there is an offset, and a factor.
      synchronized: whether the statistics of a batch are those of all replicas.
    """

    momentum: float = 0.99
    epsilon: float = 0.001
    center: bool = True
    scale: bool = True
    synchronized: bool = False


@dataclass(frozen=True)
class GroupNorm:
    """Group normalisation, with an offset and a factor.

    Attributes:
      groups: of channels; they divide the width of every layer.
      epsilon: added to the variance.
    """

    groups: int = 32
    epsilon: float = 1e-6


@dataclass(frozen=True)
class Hyperparams:
    """Hyper-parameters of convolutions and what follows them.

    Attributes:
      kernel: of convolutions, and `depthwise_kernel` of depthwise convolutions.
      normalizer: what follows a convolution; where it is None, convolutions have a bias.
      activation: relu, relu6, swish or linear.
    """

    kernel: Kernel = Kernel()
    depthwise_kernel: Kernel = Kernel()
    normalizer: BatchNorm | GroupNorm | None = BatchNorm()
    activation: str = "relu6"

    @property
    def unnormalized(self) -> Hyperparams:
        """Returns the same for convolutions that no normalisation follows.

        Their kernels keep their own mean and scale: nothing would take those of standardised
        kernels out again.
        """
        return replace(
            self,
            kernel=replace(self.kernel, standardized=False),
            depthwise_kernel=replace(self.depthwise_kernel, standardized=False),
            normalizer=None,
        )

    def initialized(self, initializer: Initializer) -> Hyperparams:
        """Returns the same with kernels that start otherwise."""
        return replace(
            self,
            kernel=replace(self.kernel, initializer=initializer),
            depthwise_kernel=replace(self.depthwise_kernel, initializer=initializer),
        )


_ACTIVATIONS = {
    hyperparams_pb2.Hyperparams.NONE: "linear",
    hyperparams_pb2.Hyperparams.RELU: "relu",
    hyperparams_pb2.Hyperparams.RELU_6: "relu6",
    hyperparams_pb2.Hyperparams.SWISH: "swish",
}


def from_proto(proto: hyperparams_pb2.Hyperparams) -> Hyperparams:
    """Reads `Hyperparams` from a config. Slim's L2 has a half that Keras' has not."""
    initializer = initializer_from_proto(proto.initializer)
    l2 = proto.regularizer.l2_regularizer.weight / 2 if proto.HasField("regularizer") else 0.0
    # The OD API leaves depthwise kernels without L2 unless told: they hold few weights.
    depthwise_l2 = l2 if proto.regularize_depthwise else 0.0
    return Hyperparams(
        kernel=Kernel(initializer, l2, proto.standardize_weights),
        depthwise_kernel=Kernel(initializer, depthwise_l2, proto.standardize_weights),
        normalizer=_normalizer(proto),
        activation=_ACTIVATIONS[proto.activation],
    )


def _normalizer(proto: hyperparams_pb2.Hyperparams) -> BatchNorm | GroupNorm | None:
    match name := proto.WhichOneof("normalizer_oneof"):
        case "batch_norm" | "sync_batch_norm":
            norm = getattr(proto, name)
            synchronized = name == "sync_batch_norm"
            return BatchNorm(norm.decay, norm.epsilon, norm.center, norm.scale, synchronized)
        case "group_norm":
            return GroupNorm(proto.group_norm.groups, proto.group_norm.epsilon)
    return None


def configured(
    part: architecture_pb2.Backbone | architecture_pb2.FeaturePyramid,
) -> Hyperparams | None:
    """Returns the hyper-parameters that a part of an Architecture states.

    None leaves those of its publication.
    """
    return from_proto(part.conv_hyperparams) if part.HasField("conv_hyperparams") else None


def initializer_from_proto(proto: hyperparams_pb2.Initializer) -> Initializer:
    """Reads `Initializer` from a config: He's where it names none."""
    match proto.WhichOneof("initializer_oneof"):
        case "random_normal_initializer":
            return Initializer("normal", proto.random_normal_initializer.stddev)
        case "truncated_normal_initializer":
            return Initializer("truncated_normal", proto.truncated_normal_initializer.stddev)
        case "variance_scaling_initializer":
            scaling = proto.variance_scaling_initializer
            distribution = "uniform" if scaling.uniform else "truncated_normal"
            mode = scaling.Mode.Name(scaling.mode).lower()
            return Initializer(distribution, scale=scaling.factor, mode=mode)
    return HE_NORMAL


def fans(
    kernel_size: int | tuple[int, int], channels_in: int, channels_out: int
) -> dict[str, float]:
    """Returns the weights into and out of one unit; a depthwise unit has one channel each way."""
    area = kernel_size**2 if isinstance(kernel_size, int) else math.prod(kernel_size)
    fan_in, fan_out = area * channels_in, area * channels_out
    return {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}


def stddev(
    initializer: Initializer,
    kernel_size: int | tuple[int, int],
    channels_in: int,
    channels_out: int,
) -> float:
    """Returns the deviation that the initializer's weights shall have."""
    if initializer.stddev:
        return initializer.stddev
    return math.sqrt(
        initializer.scale / fans(kernel_size, channels_in, channels_out)[initializer.mode]
    )

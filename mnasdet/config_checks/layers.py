"""The rules that layers have to fulfil, whatever part of an architecture they are in."""

from __future__ import annotations

from mnasdet.config_checks.section import Section
from mnasdet.errors import ConfigError, nearest
from mnasdet.operation_names import POOL, parse

# Upper bounds. Each is several times what any published network has, so none is in the way.
MAX_CHANNELS = 8192  # The widest published layer here has 2048 (ResNet).
MAX_KERNEL_SIZE = 31  # MnasNet has 5; 31 is the largest in the literature (RepLKNet).
MAX_IMAGE_SIZE = 8192  # EfficientDet-D7 takes 1536 pixels.
MAX_PREDICTOR_LAYERS = 64  # RetinaNet has 4.
MAX_EXPANSION = 64  # MnasNet has 6.
MAX_REPEATS = 64  # NAS-FPN stacks 7, SpineNet and ResNet-152 repeat a block 36 times.
MAX_DEPTH_MULTIPLIER = 16
_MAX_DILATION = 16  # Hit-Detector has 3.
MAX_PARTS = 256  # Blocks that are listed one by one; MobileNetV2 has 17.


def check_kernel_size(section: Section) -> None:
    size = section.message.kernel_size
    # An even kernel has no centre: SAME padding would move the feature by half a pixel.
    section.require(size > 0 and size % 2 == 1, "kernel_size", "only odd sizes are allowed")
    section.at_most("kernel_size", MAX_KERNEL_SIZE)


def check_hyperparams_of(part: Section) -> None:
    if part.message.HasField("conv_hyperparams"):
        check_hyperparams(part.child("conv_hyperparams"))


def check_initializer(section: Section, name: str) -> None:
    if section.message.HasField(name) and (
        initializer := section.selected(name, "initializer_oneof")
    ):
        if "mean" in initializer.message.DESCRIPTOR.fields_by_name:
            initializer.only("mean", 0)
            initializer.positive("stddev")
        else:
            initializer.positive("factor")


def check_hyperparams(hyperparams: Section) -> None:
    """Checks the hyper-parameters of convolutions."""
    message = hyperparams.message
    # FC is for fc_hyperparams of the OD API's two-stage detectors, which lose it on the way into an
    # architecture.
    hyperparams.require(message.op == type(message).CONV, "op", "only CONV is supported")
    if message.HasField("regularizer") and (
        l2 := hyperparams.selected("regularizer", "regularizer_oneof")
    ):
        l2.at_least("weight", 0)
    check_initializer(hyperparams, "initializer")
    match name := message.WhichOneof("normalizer_oneof"):
        case "batch_norm" | "sync_batch_norm":
            batch_norm = hyperparams.child(name)
            # Normalisation divides by the square root of the variance, which may be 0, plus
            # epsilon.
            batch_norm.within("decay", 0, 1)
            batch_norm.positive("epsilon")
            batch_norm.require(
                batch_norm.message.train,
                "train",
                "only true is supported; to freeze batch normalisation set "
                "model.ssd.freeze_batchnorm",
            )
        case "group_norm":
            hyperparams.child(name).counts(MAX_CHANNELS, "groups")
            hyperparams.child(name).positive("epsilon")
    # Without a normalisation nothing takes the mean and the scale of standardised weights out.
    hyperparams.require(
        name is not None or not message.standardize_weights,
        "standardize_weights",
        "batch_norm, sync_batch_norm or group_norm is needed beside it",
    )


def parts_of(section: Section, name: str) -> list[Section]:
    """Returns the parts that a repeated field lists, as many as a network can have."""
    parts = section.children(name)
    if len(parts) > MAX_PARTS:
        section.report(name, f"is there {len(parts)} times; at most {MAX_PARTS} are allowed")
    return parts[:MAX_PARTS]


def check_operations(layer: Section) -> None:
    """Checks the operations that a `ChosenLayer` lists."""
    ops = list(layer.message.op)
    if not ops:
        layer.report("op", f"is empty; {nearest('', map(str, POOL))}")
    if len(set(ops)) < len(ops):
        layer.report("op", f"is {ops}; each operation at most once")
    for text in dict.fromkeys(ops):
        try:
            operation = parse(text)
        except ConfigError as error:
            layer.report("op", f"is {text}: {error}")
            continue
        if operation.kernel_size % 2 == 0 or operation.kernel_size > MAX_KERNEL_SIZE:
            layer.report(
                "op", f"is {text}; kernels of odd sizes up to {MAX_KERNEL_SIZE} are allowed"
            )
        if not 1 <= operation.expansion <= MAX_EXPANSION:
            layer.report("op", f"is {text}; expansions from 1 to {MAX_EXPANSION} are allowed")
        if not 1 <= operation.dilation <= _MAX_DILATION:
            layer.report("op", f"is {text}; dilations from 1 to {_MAX_DILATION} are allowed")

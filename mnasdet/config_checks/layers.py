"""The rules that layers have to fulfil, whatever part of an architecture they are in."""

from __future__ import annotations

from mnasdet.config_checks.section import Section

# Upper bounds. Each is several times what any published network has, so none is in the way.
MAX_CHANNELS = 8192  # The widest published layer here has 2048 (ResNet).
MAX_KERNEL_SIZE = 31  # MnasNet has 5; 31 is the largest in the literature (RepLKNet).
MAX_PREDICTOR_LAYERS = 64  # RetinaNet has 4.


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

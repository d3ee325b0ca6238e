"""The rules for quantisation, pruning and weight clustering in training."""

from __future__ import annotations

from collections.abc import Mapping

from mnasdet.config_checks.architecture import stated_hyperparams
from mnasdet.config_checks.section import Section
from mnasdet.protos import architecture_pb2, hyperparams_pb2

# One cluster would make all weights of a kernel the same.
_MIN_CLUSTERS = 2
# The values of an int8 kernel; every weight is compared with every cluster in training.
_MAX_CLUSTERS = 256


def check_compression(
    root: Section, architecture: architecture_pb2.Architecture | None = None
) -> None:
    """Checks what a whole pipeline config says of compression, alone and together.

    Args:
      architecture: what the config builds, as far as that is known.
    """
    message, train = root.message, root.child("train_config")
    if architecture:
        _check_normalizers(root, train, stated_hyperparams(architecture))
    quantizes = message.HasField("graph_rewriter")
    if quantizes and (quantization := root.child("graph_rewriter").needed("quantization")):
        _check_quantization(quantization, message.train_config.num_steps)
    for name in ("precision", "use_bfloat16"):
        # FLOAT32 and false are 0.
        if quantizes and getattr(train.message, name):
            train.report(
                name,
                "cannot be combined with graph_rewriter: what 16-bit numbers round hides what int8 "
                "does; remove it",
            )
    check_training_compression(train)
    if train.message.HasField("weight_clustering"):
        _check_beside_clustering(root, train)
    if message.HasField("search_config"):
        for section, name in (
            (root, "graph_rewriter"),
            (train, "pruning"),
            (train, "weight_clustering"),
        ):
            if section.message.HasField(name):
                section.report(
                    name,
                    "cannot be combined with search_config: a search trains plain networks; remove "
                    "one of them, and train what was found with the other",
                )


def _check_normalizers(
    root: Section, train: Section, stated: Mapping[str, hyperparams_pb2.Hyperparams]
) -> None:
    """Reports layers whose compressed form is not what a phone executes."""
    for path, hyperparams in stated.items():
        if hyperparams.HasField("group_norm") and root.message.HasField("graph_rewriter"):
            root.report(
                "graph_rewriter",
                f"cannot be combined with {path}.group_norm: where int8 kernels round inside it is "
                "not modelled; use batch_norm",
            )
        for section, name in (
            (root, "graph_rewriter"),
            (train, "pruning"),
            (train, "weight_clustering"),
        ):
            # The export holds the standardised weights, of which others are rounded, zero or equal.
            if hyperparams.standardize_weights and section.message.HasField(name):
                section.report(
                    name,
                    f"cannot be combined with {path}.standardize_weights, which changes the "
                    "weights after it; remove one of them",
                )


def check_training_compression(train: Section) -> None:
    """Checks the pruning and the clustering of one training by themselves."""
    if train.message.HasField("pruning"):
        _check_pruning(train.child("pruning"), train.message.num_steps)
    if train.message.HasField("weight_clustering"):
        clustering = train.child("weight_clustering")
        clustering.counts(_MAX_CLUSTERS, "num_clusters", minimum=_MIN_CLUSTERS)


def _check_quantization(quantization: Section, num_steps: int) -> None:
    # The int8 kernels that the export is for have 8 bits; trained for another grid, a network would
    # lose on them what it learnt.
    quantization.only("weight_bits", 8)
    quantization.only("activation_bits", 8)
    quantization.only("symmetric", False)
    quantization.at_least("delay", 0)
    quantization.require(
        # Without steps, which is a problem of its own, there is nothing to compare it with.
        quantization.message.delay < num_steps or not num_steps,
        "delay",
        f"less than train_config.num_steps, {num_steps}, is needed, or nothing is rounded",
    )


def _check_pruning(pruning: Section, num_steps: int) -> None:
    message = pruning.message
    for name in ("initial_sparsity", "final_sparsity"):
        value = getattr(message, name)
        pruning.require(0 <= value < 1, name, "at least 0 and less than 1 is allowed")
    pruning.ordered("initial_sparsity", "final_sparsity")
    pruning.at_least("frequency", 1)
    pruning.require(
        message.begin_step < message.end_step <= num_steps,
        "end_step",
        f"more than begin_step, {message.begin_step}, and at most train_config.num_steps, "
        f"{num_steps}, is allowed",
    )
    # Weights are chosen at begin_step + n * frequency: with a rest, never at the final sparsity.
    between = message.end_step - message.begin_step
    pruning.require(
        between <= 0 or between % max(message.frequency, 1) == 0,
        "frequency",
        f"a divisor of the steps from begin_step to end_step, {between}, is needed",
    )


def _check_beside_clustering(root: Section, train: Section) -> None:
    if train.message.HasField("pruning"):
        train.report(
            "weight_clustering",
            "cannot be combined with pruning: the values of clusters are not zero; remove one of "
            "them",
        )
    if root.message.HasField("graph_rewriter"):
        train.report(
            "weight_clustering",
            "cannot be combined with graph_rewriter: int8 kernels, on a scale for every channel, "
            "have other values; remove one of them",
        )
    if root.message.eval_config.use_moving_averages:
        train.report(
            "weight_clustering",
            "cannot be combined with eval_config.use_moving_averages: averages of clustered "
            "weights are not clustered; set it to false",
        )

"""The rules of a search whose children share weights.

A path of the supernet would leave out without a word what is refused here.
"""

from __future__ import annotations

from mnasdet.config_checks.architecture import stated_hyperparams
from mnasdet.config_checks.compression import check_training_compression
from mnasdet.config_checks.section import Section
from mnasdet.config_checks.training import check_train
from mnasdet.protos import architecture_pb2

# Networks that are drawn, and batches that are kept in memory.
_MOST = 100_000

# The spaces whose networks can share weights, with the parts that are then a supernet.
_SHARED_PARTS = {
    "mnasfpn": ("feature_pyramid",),
    "no_expand": ("feature_pyramid",),
    "conn_search": ("feature_pyramid",),
    "mnasnet": ("backbone",),
    "joint": ("backbone", "feature_pyramid"),
}

# The pyramids that may read a searched backbone. The layers of others depend on its widths.
_PYRAMIDS = ("mnasfpn", "fpn", "ssd_layers")


def check_one_shot(root: Section, architecture: architecture_pb2.Architecture | None) -> None:
    """Checks `search_config.one_shot`, and what it cannot be combined with.

    Args:
      root: the whole config.
      architecture: what the model builds, as far as that is known.
    """
    search = root.child("search_config")
    one_shot = search.child("one_shot")
    one_shot.counts(_MOST, "num_networks", minimum=2)
    one_shot.within("sandwich", 0, 1)
    one_shot.counts(_MOST, "num_recalibration_batches")
    if training := one_shot.needed("train_config"):
        check_train(training)
        check_training_compression(training)
    space = search.message.search_space
    # Layers outside the searched parts exist once, for one width; and a smaller input is a resized
    # image, which has the shape of the larger one.
    for field in ("depth_multipliers", "inputs"):
        if len(getattr(space, field)) > 1:
            search.report(
                f"search_space.{field}", "has several values; one is allowed with one_shot"
            )
    name = space.WhichOneof("search_space_oneof")
    if name and name not in _SHARED_PARTS:
        search.report("one_shot", f"has no supernet for {name}; one of {', '.join(_SHARED_PARTS)}")
    elif name and root.message.HasField("model"):
        _check_model(root, search, name)
        if architecture:
            _check_architecture(search, name, architecture)


def _check_model(root: Section, search: Section, space: str) -> None:
    model = root.message.model
    if model.HasField("faster_rcnn"):
        search.report(
            "one_shot",
            "is for classifiers and detectors of one stage, and not for model.faster_rcnn; remove "
            "one of them",
        )
    if model.HasField("classification") and "feature_pyramid" in _SHARED_PARTS[space]:
        search.report(
            "one_shot",
            f"has no supernet for classifiers in search_space.{space}; search_space.mnasnet has",
        )
    # The statistics of shared weights are of no network: training takes those of the batch.
    if model.ssd.freeze_batchnorm:
        _refuse(search, "model.ssd.freeze_batchnorm")


def _refuse(search: Section, field: str) -> None:
    search.report("one_shot", f"cannot be combined with {field}; remove one of them")


def _check_architecture(
    search: Section, space: str, architecture: architecture_pb2.Architecture
) -> None:
    # Both read pyramids before the last one, which a path does not give out.
    for field in ("deep_supervision", "exit"):
        if getattr(architecture, field):
            _refuse(search, f"the architecture's {field}")
    shared = _SHARED_PARTS[space]
    pyramid = architecture.feature_pyramid.WhichOneof("feature_pyramid_oneof")
    if "backbone" in shared and pyramid not in (None, *_PYRAMIDS):
        search.report(
            "one_shot",
            f"cannot be combined with the feature pyramid {pyramid} in search_space.{space}; "
            f"{', '.join(_PYRAMIDS)} are allowed",
        )
    for path, hyperparams in stated_hyperparams(architecture).items():
        normalizer = hyperparams.WhichOneof("normalizer_oneof")
        if normalizer != "batch_norm" and (normalizer or path.partition(".")[0] in shared):
            search.report(
                "one_shot", f"needs batch_norm in {path}, which has {normalizer or 'no normalizer'}"
            )
        if hyperparams.standardize_weights:
            _refuse(search, f"{path}.standardize_weights")
    predictor = architecture.box_predictor.convolutional_box_predictor
    if predictor.num_layers_before_predictor and predictor.min_depth < predictor.max_depth:
        search.report(
            "one_shot",
            "cannot be combined with num_layers_before_predictor of convolutional_box_predictor, "
            "whose layers are as wide as the features of a network; set it to 0, or min_depth to "
            "max_depth",
        )

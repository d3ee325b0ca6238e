"""The architecture that a `faster_rcnn` message describes: the OD API's two-stage detectors."""

from __future__ import annotations

import re
from collections.abc import Callable

from mnasdet.architectures import MAX_LEVEL
from mnasdet.errors import ConfigError
from mnasdet.feature_extractors.backbones import (
    KERAS_RESNET,
    KERAS_RESNET_WITHOUT_DECAY,
    RESNET,
    SLIM_RESNET_WITHOUT_DECAY,
    backbone,
)
from mnasdet.protos import architecture_pb2, faster_rcnn_pb2, hyperparams_pb2, model_pb2
from mnasdet.text_faults.od_api import unknown_extractor

# The backbones of the feature extractors, each with its hyper-parameters.
BACKBONES = {
    "faster_rcnn_resnet50": (RESNET.format(50), SLIM_RESNET_WITHOUT_DECAY),
    "faster_rcnn_resnet50_keras": (RESNET.format(50), KERAS_RESNET_WITHOUT_DECAY),
    "faster_rcnn_resnet50_fpn_keras": (RESNET.format(50), KERAS_RESNET),
    "faster_rcnn_resnet101": (RESNET.format(101), SLIM_RESNET_WITHOUT_DECAY),
    "faster_rcnn_resnet101_keras": (RESNET.format(101), KERAS_RESNET_WITHOUT_DECAY),
    "faster_rcnn_resnet101_fpn_keras": (RESNET.format(101), KERAS_RESNET),
    "faster_rcnn_resnet152": (RESNET.format(152), SLIM_RESNET_WITHOUT_DECAY),
    "faster_rcnn_resnet152_keras": (RESNET.format(152), KERAS_RESNET_WITHOUT_DECAY),
    "faster_rcnn_resnet152_fpn_keras": (RESNET.format(152), KERAS_RESNET),
}

# The fields of the message and of its feature extractor that describe the architecture. They count
# only where none is given.
ARCHITECTURE_FIELDS = (
    "first_stage_anchor_generator",
    "first_stage_box_predictor_conv_hyperparams",
    "first_stage_box_predictor_kernel_size",
    "first_stage_box_predictor_depth",
    "initial_crop_size",
    "maxpool_kernel_size",
    "maxpool_stride",
    "second_stage_box_predictor",
    "region_align",
    "cascade_stage",
    "guided_anchoring",
)
EXTRACTOR_FIELDS = (
    "type",
    "first_stage_features_stride",
    "conv_hyperparams",
    "override_base_feature_extractor_hyperparams",
    "pad_to_multiple",
    "fpn",
)

# The levels of a pyramid that a config says nothing of; the defaults of its message are those of
# one-stage detectors.
_FPN_LEVELS = (2, 6)

# Pixels, the side of regions from whose level the levels of others are counted: ImageNet's images
# (Lin et al., "Feature Pyramid Networks", 2017, equation 1). The paper crops them from level 4 of 2
# to 5; the OD API from the level before the last, which is 5 of 2 to 6.
_CANONICAL_SIDE = 224
_FINEST_LEVEL = 2

# Features of a region for the last stage of the backbone: a stage of keras.applications strides
# there as it does in a classifier, and slim's is built without.
_KERAS_STRIDE = 2
_SLIM_STRIDE = 1

_FC_HYPERPARAMS = "second_stage_box_predictor.mask_rcnn_box_predictor.fc_hyperparams"
_KEPT = "second_stage_box_predictor.mask_rcnn_box_predictor.dropout_keep_probability"

# Where a config says what stands in a field of its architecture; the first that matches counts.
_PLACES = (
    ("anchor_generator", "first_stage_anchor_generator"),
    ("region_proposal.conv_hyperparams", "first_stage_box_predictor_conv_hyperparams"),
    ("region_proposal.channels", "first_stage_box_predictor_depth"),
    ("region_proposal.kernel_size", "first_stage_box_predictor_kernel_size"),
    ("region_proposal.max_proposals", "first_stage_max_proposals"),
    ("region_proposal.guided_anchoring", "guided_anchoring"),
    ("region_head.stage", "cascade_stage"),
    ("region_head.hyperparams", _FC_HYPERPARAMS),
    ("region_head.dropout", _KEPT),
    ("backbone.conv_hyperparams", "feature_extractor.conv_hyperparams"),
    ("feature_pyramid.conv_hyperparams", "feature_extractor.conv_hyperparams"),
    ("feature_pyramid.fpn.channels", "feature_extractor.fpn.additional_layer_depth"),
    ("feature_pyramid.fpn", "feature_extractor.fpn"),
)
_OWN_ALIGN = (("region_head.region_align", "region_align"),)
_OD_API_ALIGN = (
    ("region_head.region_align.size", "initial_crop_size"),
    ("region_head.region_align.max_pool_size", "maxpool_kernel_size"),
    ("region_head.region_align.max_pool_stride", "maxpool_stride"),
)


def has_pyramid(extractor: faster_rcnn_pb2.FasterRcnnFeatureExtractor) -> bool:
    """Tells whether the feature extractor of a type has a pyramid."""
    return "_fpn" in extractor.type


def architecture(
    settings: faster_rcnn_pb2.FasterRcnn,
    published: Callable[[str], architecture_pb2.Architecture],
) -> architecture_pb2.Architecture:
    """Builds the network as the OD API does."""
    extractor = settings.feature_extractor
    if extractor.type not in BACKBONES:
        raise ConfigError(
            unknown_extractor("model.faster_rcnn.feature_extractor.type", extractor.type, BACKBONES)
        )
    built = architecture_pb2.Architecture(
        name=extractor.type,
        backbone=backbone(*BACKBONES[extractor.type]),
        region_proposal=_region_proposal(settings),
        region_head=_region_head(settings),
    )
    if settings.HasField("first_stage_anchor_generator"):
        built.anchor_generator.CopyFrom(settings.first_stage_anchor_generator)
        # The OD API's anchors are in pixels before the first stage; here they never are.
        if built.anchor_generator.HasField("multiscale_anchor_generator"):
            built.anchor_generator.multiscale_anchor_generator.ClearField("normalize_coordinates")
    if has_pyramid(extractor):
        built.feature_pyramid.CopyFrom(_pyramid(extractor))
        if extractor.override_base_feature_extractor_hyperparams:
            built.backbone.conv_hyperparams.CopyFrom(extractor.conv_hyperparams)
    return built


def _pyramid(
    extractor: faster_rcnn_pb2.FasterRcnnFeatureExtractor,
) -> architecture_pb2.FeaturePyramid:
    min_level, max_level = _levels(extractor)
    pyramid = architecture_pb2.FeaturePyramid(
        fpn=architecture_pb2.Fpn(
            min_level=min_level,
            max_level=max_level,
            channels=extractor.fpn.additional_layer_depth,
            variant=architecture_pb2.Fpn.OBJECT_DETECTION_API,
        )
    )
    if extractor.HasField("conv_hyperparams"):
        pyramid.conv_hyperparams.CopyFrom(extractor.conv_hyperparams)
    return pyramid


def _levels(extractor: faster_rcnn_pb2.FasterRcnnFeatureExtractor) -> tuple[int, int]:
    if not extractor.HasField("fpn"):
        return _FPN_LEVELS
    return extractor.fpn.min_level, extractor.fpn.max_level


def _region_proposal(settings: faster_rcnn_pb2.FasterRcnn) -> architecture_pb2.RegionProposal:
    proposal = architecture_pb2.RegionProposal(
        channels=settings.first_stage_box_predictor_depth,
        kernel_size=settings.first_stage_box_predictor_kernel_size,
        objectness=architecture_pb2.RegionProposal.SOFTMAX,
        max_proposals=settings.first_stage_max_proposals,
        level_predictions=has_pyramid(settings.feature_extractor),
    )
    proposal.conv_hyperparams.CopyFrom(settings.first_stage_box_predictor_conv_hyperparams)
    # The OD API's, whatever the config says.
    proposal.conv_hyperparams.activation = hyperparams_pb2.Hyperparams.RELU_6
    if settings.HasField("guided_anchoring"):
        proposal.guided_anchoring.CopyFrom(settings.guided_anchoring)
        # A place with a predicted shape shows an object or not.
        proposal.objectness = architecture_pb2.RegionProposal.SIGMOID
    return proposal


def _region_head(settings: faster_rcnn_pb2.FasterRcnn) -> architecture_pb2.RegionHead:
    predictor = settings.second_stage_box_predictor.mask_rcnn_box_predictor
    head = architecture_pb2.RegionHead(
        region_align=_region_align(settings),
        class_agnostic_boxes=predictor.share_box_across_classes,
        stage=settings.cascade_stage,
    )
    if has_pyramid(settings.feature_extractor):
        head.fully_connected.SetInParent()
    else:
        is_keras = settings.feature_extractor.type.endswith("_keras")
        head.last_backbone_stage.stride = _KERAS_STRIDE if is_keras else _SLIM_STRIDE
    if predictor.HasField("fc_hyperparams"):
        head.hyperparams.CopyFrom(predictor.fc_hyperparams)
        # A fully connected layer is a convolution of one place here.
        head.hyperparams.ClearField("op")
    if predictor.use_dropout:
        head.dropout = 1 - predictor.dropout_keep_probability
    return head


def _region_align(settings: faster_rcnn_pb2.FasterRcnn) -> architecture_pb2.RegionAlign:
    if settings.HasField("region_align"):
        return settings.region_align
    align = architecture_pb2.RegionAlign(
        size=settings.initial_crop_size, sampling_ratio=1, from_corner_to_corner=True
    )
    if settings.maxpool_kernel_size:
        align.max_pool_size = settings.maxpool_kernel_size
        align.max_pool_stride = settings.maxpool_stride
    if has_pyramid(settings.feature_extractor):
        _, max_level = _levels(settings.feature_extractor)
        before_last = min(max_level, MAX_LEVEL) - 1
        align.finest_scale = _CANONICAL_SIDE / 2.0 ** (before_last - _FINEST_LEVEL)
    return align


def merge(settings: faster_rcnn_pb2.FasterRcnn, resolved: architecture_pb2.Architecture) -> None:
    """Puts in what the message says beside an architecture that is given, or beside its own."""
    if settings.HasField("first_stage_max_proposals") and resolved.HasField("region_head"):
        resolved.region_proposal.max_proposals = settings.first_stage_max_proposals


def replace(settings: faster_rcnn_pb2.FasterRcnn) -> None:
    """Takes out what describes the architecture: both would be checked, and one ignored."""
    for field in ARCHITECTURE_FIELDS:
        settings.ClearField(field)
    if settings.HasField("feature_extractor"):
        for field in EXTRACTOR_FIELDS:
            settings.feature_extractor.ClearField(field)


def replace_all(settings: faster_rcnn_pb2.FasterRcnn) -> None:
    """Takes out what would change an architecture that has everything."""
    settings.ClearField("first_stage_max_proposals")


def rooted(problem: str, model: model_pb2.DetectionModel) -> str:
    """Returns the problem of a resolved architecture, with its field's path in the config."""
    settings = model.faster_rcnn
    if model.WhichOneof("architecture_oneof"):
        return f"model.architecture.{problem}"
    align = _OWN_ALIGN if settings.HasField("region_align") else _OD_API_ALIGN
    for field, place in (*_PLACES, *align):
        if found := re.match(rf"{re.escape(field)}(?=[.\[ ])", problem):
            return f"model.faster_rcnn.{place}{problem[found.end() :]}"
    return f"model.faster_rcnn.{problem}"

"""The architecture that an `ssd` message describes: the OD API's one-stage feature extractors."""

from __future__ import annotations

import re
from collections.abc import Callable

from mnasdet.errors import ConfigError
from mnasdet.feature_extractors.backbones import (
    KERAS_MOBILENET,
    KERAS_RESNET,
    RESNET,
    SLIM_MOBILENET,
    SLIM_RESNET,
    backbone,
)
from mnasdet.protos import architecture_pb2, model_pb2, ssd_pb2
from mnasdet.text_faults.od_api import unknown_extractor

# The backbones of the feature extractors, each with its hyper-parameters; the backbone under
# MnasFPN has those of the paper. MobileNetV3's are those with fewer channels at stride 32 (Howard
# et al., 2019, section 6.3).
BACKBONES = {
    "ssd_mobilenet_v2": ("mobilenet_v2 {}", SLIM_MOBILENET),
    "ssd_mobilenet_v2_keras": ("mobilenet_v2 {}", KERAS_MOBILENET),
    "ssd_mobilenet_v2_fpn": ("mobilenet_v2 {}", SLIM_MOBILENET),
    "ssd_mobilenet_v2_fpn_keras": ("mobilenet_v2 {}", KERAS_MOBILENET),
    "ssd_mobilenet_v2_mnasfpn": ("mobilenet_v2 {}", ""),
    "ssd_mobilenet_v3_large": ("mobilenet_v3 { size: LARGE halved: true }", SLIM_MOBILENET),
    "ssd_mobilenet_v3_small": ("mobilenet_v3 { size: SMALL halved: true }", SLIM_MOBILENET),
    "ssd_resnet50_v1_fpn": (RESNET.format(50), SLIM_RESNET),
    "ssd_resnet50_v1_fpn_keras": (RESNET.format(50), KERAS_RESNET),
    "ssd_resnet101_v1_fpn": (RESNET.format(101), SLIM_RESNET),
    "ssd_resnet101_v1_fpn_keras": (RESNET.format(101), KERAS_RESNET),
    "ssd_resnet152_v1_fpn": (RESNET.format(152), SLIM_RESNET),
    "ssd_resnet152_v1_fpn_keras": (RESNET.format(152), KERAS_RESNET),
}

_MNASFPN = "ssd_mobilenet_v2_mnasfpn"

# Its feature pyramid, as published.
_MNASFPN_ARCHITECTURE = "mobilenet_v2_mnasfpn"

# SSD's extra layers (Liu et al., 2016; the widths are the OD API's).
_SSD_CHANNELS = (512, 256, 256, 128)

# The width of MobileNetV2's last 1x1 convolution under TF1's FPNLite. TF2's extractor means to
# have it too, but never hands it to its backbone: the zoo's checkpoints have all 1280 channels.
_FPNLITE_LAST_CHANNELS = 256

# The fields of a feature extractor that describe the architecture. They count only where none is
# given.
ARCHITECTURE_FIELDS = (
    "type",
    "depth_multiplier",
    "min_depth",
    "use_depthwise",
    "fpn",
    "num_layers",
)


def architecture(
    settings: ssd_pb2.Ssd, published: Callable[[str], architecture_pb2.Architecture]
) -> architecture_pb2.Architecture:
    """Builds backbone and feature pyramid as the OD API does for a `feature_extractor` message.

    Args:
      published: returns the architecture of a name.
    """
    extractor = settings.feature_extractor
    if extractor.type not in BACKBONES:
        raise ConfigError(
            unknown_extractor("model.ssd.feature_extractor.type", extractor.type, BACKBONES)
        )
    network = backbone(*BACKBONES[extractor.type])
    # The ResNets' pyramids never have separable convolutions there.
    separable = extractor.use_depthwise and not network.HasField("resnet")
    if separable and extractor.type == "ssd_mobilenet_v2_fpn":
        network.mobilenet_v2.last_channels = _FPNLITE_LAST_CHANNELS
    return architecture_pb2.Architecture(
        name=extractor.type,
        depth_multiplier=extractor.depth_multiplier,
        min_depth=extractor.min_depth,
        backbone=network,
        feature_pyramid=_pyramid(extractor, separable, published),
    )


def _pyramid(
    extractor: ssd_pb2.SsdFeatureExtractor,
    separable: bool,
    published: Callable[[str], architecture_pb2.Architecture],
) -> architecture_pb2.FeaturePyramid:
    fpn = extractor.fpn
    if extractor.type == _MNASFPN:
        pyramid = published(_MNASFPN_ARCHITECTURE).feature_pyramid
        if extractor.HasField("fpn"):
            _check_mnasfpn_levels(fpn, pyramid.mnasfpn)
            pyramid.mnasfpn.channels = fpn.additional_layer_depth
        return pyramid
    if "_fpn" in extractor.type:
        return architecture_pb2.FeaturePyramid(
            fpn=architecture_pb2.Fpn(
                min_level=fpn.min_level,
                max_level=fpn.max_level,
                channels=fpn.additional_layer_depth,
                separable=separable,
                variant=architecture_pb2.Fpn.OBJECT_DETECTION_API,
            )
        )
    channels = _SSD_CHANNELS[: max(extractor.num_layers - 2, 0)]
    layers = architecture_pb2.SsdLayers(channels=channels, separable=separable)
    return architecture_pb2.FeaturePyramid(ssd_layers=layers)


def _check_mnasfpn_levels(
    fpn: ssd_pb2.FeaturePyramidNetworks, mnasfpn: architecture_pb2.MnasFpn
) -> None:
    for name in ("min_level", "max_level"):
        level, needed = getattr(fpn, name), getattr(mnasfpn, name)
        if level != needed:
            raise ConfigError(
                f"model.ssd.feature_extractor.fpn.{name} is {level}; {needed} is needed by "
                f"{_MNASFPN}"
            )


def merge(settings: ssd_pb2.Ssd, resolved: architecture_pb2.Architecture) -> None:
    """Puts in what the message says beside an architecture that is given, or beside its own."""
    extractor = settings.feature_extractor
    # The MnasFPN extractor keeps its own, as in the OD API.
    if extractor.HasField("conv_hyperparams") and extractor.type != _MNASFPN:
        resolved.feature_pyramid.conv_hyperparams.CopyFrom(extractor.conv_hyperparams)
        if extractor.override_base_feature_extractor_hyperparams:
            resolved.backbone.conv_hyperparams.CopyFrom(extractor.conv_hyperparams)
    if settings.HasField("box_predictor"):
        resolved.box_predictor.CopyFrom(settings.box_predictor)
    if settings.HasField("anchor_generator"):
        resolved.anchor_generator.CopyFrom(settings.anchor_generator)


def replace(settings: ssd_pb2.Ssd) -> None:
    """Takes out what describes the architecture: both would be checked, and one ignored."""
    for field in ARCHITECTURE_FIELDS:
        settings.feature_extractor.ClearField(field)


def replace_all(settings: ssd_pb2.Ssd) -> None:
    """Takes out what would change an architecture that has everything."""
    settings.feature_extractor.ClearField("conv_hyperparams")
    settings.feature_extractor.ClearField("override_base_feature_extractor_hyperparams")


def rooted(problem: str, model: model_pb2.DetectionModel) -> str:
    """Returns the problem of a resolved architecture, with its field's path in the config."""
    field = re.split(r"[. ]", problem, maxsplit=1)[0]
    of_part = problem.partition(".")[2]
    if field in ("box_predictor", "anchor_generator") and model.ssd.HasField(field):
        # The merged field stands where the config wrote it, and that is the line to be named.
        return f"model.ssd.{problem}"
    extractor = model.ssd.feature_extractor
    if of_part.startswith("conv_hyperparams") and extractor.HasField("conv_hyperparams"):
        return f"model.ssd.feature_extractor.{of_part}"
    if model.WhichOneof("architecture_oneof"):
        return f"model.architecture.{problem}"
    if field in ("depth_multiplier", "min_depth"):
        return f"model.ssd.feature_extractor.{problem}"
    if field == "feature_pyramid":
        of_fpn = re.sub(r"^(mnas)?fpn\.channels", "fpn.additional_layer_depth", of_part)
        return f"model.ssd.feature_extractor.{of_fpn}"
    return f"model.ssd.{problem}"

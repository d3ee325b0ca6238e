"""The rules that an architecture has to fulfil beyond its syntax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mnasdet.architectures import (
    NUM_ASPECT_RATIOS,
    levels,
)
from mnasdet.config_checks.backbones import check_backbone
from mnasdet.config_checks.feature_pyramids import check_pyramid
from mnasdet.config_checks.layers import (
    MAX_CHANNELS,
    MAX_DEPTH_MULTIPLIER,
    MAX_IMAGE_SIZE,
    MAX_PREDICTOR_LAYERS,
    check_hyperparams,
    check_hyperparams_of,
    check_initializer,
    check_kernel_size,
)
from mnasdet.config_checks.regions import check_regions
from mnasdet.config_checks.section import Section
from mnasdet.protos import architecture_pb2, hyperparams_pb2

_BOX_CODE_SIZE = 4

# Upper bounds. Each is several times what any published network has, so none is in the way; a slip
# such as repeats: 2147483647 would otherwise build layers until the memory is full.
# Objects365, iNaturalist and LVIS have 365 to 8142 classes.
MAX_CLASSES = 100_000
_MAX_ANCHORS = 64  # At one place of a feature; RetinaNet has 9.
_MAX_ANCHOR_SIZE = 1000  # Over a level's stride, or over the image's side.
_MAX_ASPECT_RATIO = 1000
_MAX_BIAS = 1000  # Focal loss starts with -4.6.


def architecture_problems(architecture: architecture_pb2.Architecture) -> list[str]:
    """Returns all problems of an architecture; paths start at its own fields."""
    root = Section(architecture, "", [])
    root.positive("depth_multiplier")
    root.at_most("depth_multiplier", MAX_DEPTH_MULTIPLIER)
    root.counts(MAX_CHANNELS, "min_depth")
    for name in ("published_at", "input"):
        if architecture.HasField(name):
            root.child(name).counts(MAX_IMAGE_SIZE, "height", "width")
    if backbone := root.selected("backbone", "backbone_oneof"):
        check_backbone(backbone)
        check_hyperparams_of(root.child("backbone"))
    if architecture.HasField("classifier"):
        _check_classifier(root)
        return root.problems
    repeats = 1
    # Without a pyramid the backbone's last level predicts (SM-NAS, section 3.2.1).
    if architecture.HasField("feature_pyramid") and (
        pyramid := root.selected("feature_pyramid", "feature_pyramid_oneof")
    ):
        check_pyramid(pyramid)
        check_hyperparams_of(root.child("feature_pyramid"))
        repeats = getattr(pyramid.message, "repeats", 1)
    root.within("exit", 0, max(repeats, 0))
    if architecture.HasField("region_head"):
        check_regions(root)
    elif predictor := root.selected("box_predictor", "box_predictor_oneof"):
        check_predictor(predictor)
        _check_same_on_all_levels(predictor, architecture)
    if architecture.region_proposal.HasField("guided_anchoring"):
        if architecture.HasField("anchor_generator"):
            root.report("anchor_generator", "has no effect beside guided_anchoring; remove it")
    elif anchors := root.selected("anchor_generator", "anchor_generator_oneof"):
        _check_anchors(anchors, levels(architecture))
    return root.problems


def stated_hyperparams(
    architecture: architecture_pb2.Architecture,
) -> dict[str, hyperparams_pb2.Hyperparams]:
    """Returns all hyper-parameters that an architecture states, by their paths."""
    parts: dict[str, Any] = {
        "backbone": architecture.backbone,
        "feature_pyramid": architecture.feature_pyramid,
    }
    if name := architecture.box_predictor.WhichOneof("box_predictor_oneof"):
        parts[f"box_predictor.{name}"] = getattr(architecture.box_predictor, name)
    parts["region_proposal"] = architecture.region_proposal
    stated = {
        f"{path}.conv_hyperparams": part.conv_hyperparams
        for path, part in parts.items()
        if part.HasField("conv_hyperparams")
    }
    if architecture.region_head.HasField("hyperparams"):
        stated["region_head.hyperparams"] = architecture.region_head.hyperparams
    return stated


def _check_classifier(root: Section) -> None:
    classifier = root.child("classifier")
    classifier.at_least("hidden_channels", 0)
    classifier.at_most("hidden_channels", MAX_CHANNELS)
    dropout = classifier.message.dropout
    # dropout is the share that is dropped: at 1 the classifier would see nothing but zeros.
    classifier.require(0 <= dropout < 1, "dropout", "0 to less than 1 is allowed")
    # A classifier ends in its dense layer, so the parts of a detector would be dropped in silence.
    for name in ("feature_pyramid", "box_predictor", "anchor_generator"):
        if root.message.HasField(name):
            root.report(name, "has no effect beside classifier; remove one of them")


def check_predictor(predictor: Section) -> None:
    """Checks one kind of box predictor."""
    message = predictor.message
    predictor.at_least("num_layers_before_predictor", 0)
    predictor.at_most("num_layers_before_predictor", MAX_PREDICTOR_LAYERS)
    predictor.within("class_prediction_bias_init", -_MAX_BIAS, _MAX_BIAS)
    check_kernel_size(predictor)
    if message.DESCRIPTOR.name == "ConvolutionalBoxPredictor":
        _check_convolutional(predictor)
    else:
        check_initializer(predictor, "prediction_initializer")
        if message.num_layers_before_predictor > 0:
            predictor.at_least("depth", 1)
        predictor.at_most("depth", MAX_CHANNELS)
    if hyperparams := predictor.needed("conv_hyperparams"):
        check_hyperparams(hyperparams)


def _check_convolutional(predictor: Section) -> None:
    message = predictor.message
    # 0 is the OD API's default: a max_depth of 0 leaves the layers out.
    for name in ("min_depth", "max_depth"):
        predictor.at_least(name, 0)
        predictor.at_most(name, MAX_CHANNELS)
    if message.use_dropout:
        kept = message.dropout_keep_probability
        predictor.require(
            0 < kept <= 1, "dropout_keep_probability", "more than 0 and at most 1 is allowed"
        )
    # A depthwise 1x1 convolution only scales each channel; a config with both is a slip.
    if message.use_depthwise and message.kernel_size == 1:
        predictor.report("kernel_size", "is 1; use_depthwise needs at least 3")
    # The box coder is (ymin, xmin, ymax, xmax) without keypoints, so a box has four codes.
    predictor.only("box_code_size", _BOX_CODE_SIZE)
    # Suppression applies post_processing's score_converter: a sigmoid here would be a second one.
    predictor.only("apply_sigmoid_to_scores", False)
    if message.HasField("box_encodings_clip_range"):
        predictor.child("box_encodings_clip_range").ordered("min", "max")


def _check_same_on_all_levels(
    predictor: Section, architecture: architecture_pb2.Architecture
) -> None:
    """Reports what differs between levels: a predictor that they share needs it to be the same."""
    if predictor.message.DESCRIPTOR.name != "WeightSharedConvolutionalBoxPredictor":
        return
    if architecture.feature_pyramid.HasField("ssd_layers"):
        predictor.problems.append(
            f"{predictor.path} needs features of the same channels, which ssd_layers does not "
            "give; use convolutional_box_predictor"
        )
    generator = architecture.anchor_generator
    if (
        generator.HasField("ssd_anchor_generator")
        and generator.ssd_anchor_generator.reduce_boxes_in_lowest_layer
    ):
        predictor.problems.append(
            "anchor_generator.ssd_anchor_generator.reduce_boxes_in_lowest_layer is true; false is "
            "needed where all layers share one predictor"
        )


def _check_anchors(anchors: Section, levels_of_features: Sequence[int]) -> None:
    message = anchors.message
    most = _MAX_ASPECT_RATIO
    if any(not 0 < ratio < math.inf for ratio in message.aspect_ratios):
        anchors.report("aspect_ratios", f"is {_numbers(message.aspect_ratios)}; above 0")
    elif any(not 1 / most <= ratio <= most for ratio in message.aspect_ratios):
        shown = _numbers(message.aspect_ratios)
        anchors.report("aspect_ratios", f"is {shown}; 1/{most} to {most} is allowed")
    if len(message.aspect_ratios) > _MAX_ANCHORS:
        anchors.report("aspect_ratios", f"has {len(message.aspect_ratios)}; at most {_MAX_ANCHORS}")
    if message.DESCRIPTOR.name == "SsdAnchorGenerator":
        _check_ssd_anchors(anchors, len(levels_of_features))
        return
    if message.DESCRIPTOR.name == "GridAnchorGenerator":
        _check_grid_anchors(anchors, levels_of_features)
        return
    anchors.positive("anchor_scale")
    anchors.at_most("anchor_scale", _MAX_ANCHOR_SIZE)
    # An empty list stands for the default ratios.
    num_ratios = len(message.aspect_ratios) or NUM_ASPECT_RATIOS
    anchors.counts(max(_MAX_ANCHORS // num_ratios, 1), "scales_per_octave")
    # Boxes are coded relative to the image throughout.
    anchors.only("normalize_coordinates", True)
    # Without a pyramid nothing says which levels there are; that problem has a message of its own.
    if levels_of_features:
        for name, level in (
            ("min_level", levels_of_features[0]),
            ("max_level", levels_of_features[-1]),
        ):
            anchors.require(
                getattr(message, name) == level,
                name,
                f"{level} is needed, as in the feature pyramid",
            )


def _check_grid_anchors(anchors: Section, levels_of_features: Sequence[int]) -> None:
    message = anchors.message
    if len(levels_of_features) > 1:
        anchors.problems.append(
            f"{anchors.path} is for a single feature, and there are {len(levels_of_features)}; use "
            "multiscale_anchor_generator"
        )
    elif levels_of_features:
        # Anchors with another step than the feature's would lie beside what it sees.
        for name in ("height_stride", "width_stride"):
            anchors.only(name, 2 ** levels_of_features[0])
    anchors.counts(MAX_IMAGE_SIZE, "height", "width", "height_stride", "width_stride")
    anchors.counts(MAX_IMAGE_SIZE, "height_offset", "width_offset", minimum=0)
    for name in ("scales", "aspect_ratios"):
        if not getattr(message, name):
            anchors.report(name, "is empty; at least one is needed")
    if any(not 0 < scale <= _MAX_ANCHOR_SIZE for scale in message.scales):
        shown = _numbers(message.scales)
        anchors.report("scales", f"is {shown}; more than 0 and at most {_MAX_ANCHOR_SIZE}")
    if len(message.scales) * len(message.aspect_ratios) > _MAX_ANCHORS:
        anchors.report("scales", f"with aspect_ratios make more than {_MAX_ANCHORS} anchors")


def _check_ssd_anchors(anchors: Section, num_features: int) -> None:
    message = anchors.message
    if num_features:
        anchors.require(
            message.num_layers == num_features,
            "num_layers",
            f"{num_features} is needed, one for each feature that predicts",
        )
    anchors.positive("base_anchor_height", "base_anchor_width")
    for name in ("base_anchor_height", "base_anchor_width", "max_scale"):
        anchors.at_most(name, _MAX_ANCHOR_SIZE)
    anchors.at_least("interpolated_scale_aspect_ratio", 0)
    anchors.at_most("interpolated_scale_aspect_ratio", _MAX_ASPECT_RATIO)
    if not message.aspect_ratios and not message.interpolated_scale_aspect_ratio:
        anchors.report("aspect_ratios", "is empty; at least one is needed")
    if not message.scales:
        anchors.positive("min_scale", "max_scale")
        anchors.ordered("min_scale", "max_scale")
    for name in ("scales", "height_stride", "width_stride", "height_offset", "width_offset"):
        values = getattr(message, name)
        # A scale of 0 would make anchors empty, a stride of 0 would put them all on one point.
        least = 0 if name.endswith("_offset") else 1e-9
        most = _MAX_ANCHOR_SIZE if name == "scales" else MAX_IMAGE_SIZE
        if values and len(values) != message.num_layers:
            anchors.report(name, f"has {len(values)} values; num_layers is {message.num_layers}")
        elif any(not least <= value < math.inf for value in values):
            anchors.report(
                name, f"is {_numbers(values)}; {'at least' if least == 0 else 'above'} 0"
            )
        elif any(value > most for value in values):
            anchors.report(name, f"is {_numbers(values)}; at most {most}")
    # The OD API zips the two lists, so that a value without a partner is lost in silence.
    for height, width in (("height_stride", "width_stride"), ("height_offset", "width_offset")):
        if len(getattr(message, height)) != len(getattr(message, width)):
            anchors.report(height, f"and {width} go together; give both or none")


def _numbers(values) -> list[float]:
    """Returns floats as they were written: a float32 as a double has more digits."""
    return [float(f"{value:g}") for value in values]

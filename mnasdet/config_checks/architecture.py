"""The rules that an architecture has to fulfil beyond its syntax."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mnasdet import base_codes
from mnasdet.architectures import (
    COARSEST,
    MAX_LEVEL,
    MAX_SSD_LAYERS,
    NUM_ASPECT_RATIOS,
    levels,
    levels_of,
)
from mnasdet.config_checks.layers import (
    MAX_CHANNELS,
    MAX_KERNEL_SIZE,
    MAX_PREDICTOR_LAYERS,
    check_hyperparams,
    check_hyperparams_of,
    check_initializer,
    check_kernel_size,
)
from mnasdet.config_checks.regions import check_regions
from mnasdet.config_checks.section import Section
from mnasdet.errors import ConfigError, nearest
from mnasdet.operation_names import POOL, parse
from mnasdet.protos import architecture_pb2, hyperparams_pb2

# The finest level that a pyramid may start from: all backbones here give levels 2 to 5.
_FINEST = 2

# ResNets with basic blocks and with bottlenecks.
_BASIC_DEPTHS = (10, 18, 34)
_BOTTLENECK_DEPTHS = (50, 101, 152)

# The stem of AmoebaNet-D has a quarter of F filters, and its bottlenecks a quarter of those: below
# 16 a bottleneck would have no filters at all.
_AMOEBANET_MIN_FILTERS = 16

_BOX_CODE_SIZE = 4

# Upper bounds. Each is several times what any published network has, so none is in the way; a slip
# such as repeats: 2147483647 would otherwise build layers until the memory is full.
MAX_REPEATS = 64  # NAS-FPN stacks 7, SpineNet and ResNet-152 repeat a block 36 times.
MAX_IMAGE_SIZE = 8192  # EfficientDet-D7 takes 1536 pixels.
# Objects365, iNaturalist and LVIS have 365 to 8142 classes.
MAX_CLASSES = 100_000
_MAX_CELLS = 256  # AmoebaNet-D has 18.
_MAX_EXPANSION = 64  # MnasNet has 6.
_MAX_DILATION = 16  # Hit-Detector has 3.
MAX_DEPTH_MULTIPLIER = 16
_MAX_ANCHORS = 64  # At one place of a feature; RetinaNet has 9.
_MAX_ANCHOR_SIZE = 1000  # Over a level's stride, or over the image's side.
_MAX_ASPECT_RATIO = 1000
_MAX_BIAS = 1000  # Focal loss starts with -4.6.
_MAX_GROUPS = 1024  # ResNeXt has 32.
_MAX_PARTS = 256  # Blocks that are listed one by one; MobileNetV2 has 17.
# Layers of all blocks with their repeats, and features that all blocks or cells of all repeats of a
# pyramid merge. ResNet-152 has 50 blocks; NAS-FPN merges 98 features and MnasFPN 84.
_MAX_LAYERS = 1024
_MAX_MERGED = 4096

# Values of a list that a message shows.
_SHOWN = 12


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
        _check_backbone(backbone)
        check_hyperparams_of(root.child("backbone"))
    if architecture.HasField("classifier"):
        _check_classifier(root)
        return root.problems
    repeats = 1
    # Without a pyramid the backbone's last level predicts (SM-NAS, section 3.2.1).
    if architecture.HasField("feature_pyramid") and (
        pyramid := root.selected("feature_pyramid", "feature_pyramid_oneof")
    ):
        _check_pyramid(pyramid)
        check_hyperparams_of(root.child("feature_pyramid"))
        repeats = getattr(pyramid.message, "repeats", 1)
    root.within("exit", 0, max(repeats, 0))
    if architecture.HasField("region_head"):
        check_regions(root)
    elif predictor := root.selected("box_predictor", "box_predictor_oneof"):
        _check_predictor(predictor)
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


def _check_backbone(backbone: Section) -> None:
    match backbone.message.DESCRIPTOR.name:
        case "MobileNetV2":
            backbone.positive("depth_multiplier")
            backbone.at_most("depth_multiplier", MAX_DEPTH_MULTIPLIER)
            backbone.counts(MAX_CHANNELS, "last_channels")
        case "MnasNet":
            _check_mnasnet(backbone)
        case "ResNet":
            _check_resnet(backbone)
        case "OperationLayers":
            _check_operation_layers(backbone)
        case "AmoebaNetD":
            backbone.counts(_MAX_CELLS, "num_cells")
            backbone.at_least("filters", _AMOEBANET_MIN_FILTERS)
            backbone.at_most("filters", MAX_CHANNELS)
        case "BaseCode":
            _check_base_code(backbone)


def _check_base_code(backbone: Section) -> None:
    try:
        network = base_codes.parse(backbone.message.code)
    except ConfigError as error:
        backbone.report("code", f"cannot be read: {error}")
        return
    if network.num_blocks > _MAX_PARTS:
        backbone.report(
            "code", f"has {network.num_blocks} blocks; at most {_MAX_PARTS} are allowed"
        )
    elif max(network.widths) > MAX_CHANNELS:
        backbone.report(
            "code", f"ends with {max(network.widths)} channels; at most {MAX_CHANNELS} are allowed"
        )


def _check_mnasnet(backbone: Section) -> None:
    backbone.counts(MAX_CHANNELS, "stem_channels", "last_channels")
    blocks = _parts(backbone, "block")
    for block in blocks:
        block.counts(MAX_REPEATS, "repeats")
        block.counts(_MAX_EXPANSION, "expansion")
        block.counts(MAX_CHANNELS, "channels")
        block.within("stride", 1, 2)
        block.within("se_ratio", 0, 1)
        check_kernel_size(block)
    layers = sum(min(block.message.repeats, MAX_REPEATS) for block in blocks)
    if layers > _MAX_LAYERS:
        backbone.report(
            "block", f"has {layers} layers with all repeats; at most {_MAX_LAYERS} are allowed"
        )
    _check_strides(backbone, "block", blocks)


def _check_operation_layers(backbone: Section) -> None:
    backbone.counts(MAX_CHANNELS, "stem_channels")
    backbone.at_least("last_channels", 0)
    backbone.at_most("last_channels", MAX_CHANNELS)
    layers = _parts(backbone, "layer")
    for layer in layers:
        _check_operations(layer)
        layer.counts(MAX_CHANNELS, "channels")
        layer.within("stride", 1, 2)
    _check_strides(backbone, "layer", layers)


def _check_operations(layer: Section) -> None:
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
        if not 1 <= operation.expansion <= _MAX_EXPANSION:
            layer.report("op", f"is {text}; expansions from 1 to {_MAX_EXPANSION} are allowed")
        if not 1 <= operation.dilation <= _MAX_DILATION:
            layer.report("op", f"is {text}; dilations from 1 to {_MAX_DILATION} are allowed")


def _check_strides(backbone: Section, name: str, layers: list[Section]) -> None:
    strided = sum(layer.message.stride == 2 for layer in layers)
    # The stem has stride 2 as well. Pyramids and heads take the last feature of each stride.
    if strided != COARSEST - 1:
        backbone.report(
            name, f"has stride 2 {strided} times; {COARSEST - 1} times is needed, for stride 32"
        )


def _parts(section: Section, name: str) -> list[Section]:
    """Returns the parts that a repeated field lists, as many as a network can have."""
    parts = section.children(name)
    if len(parts) > _MAX_PARTS:
        section.report(name, f"is there {len(parts)} times; at most {_MAX_PARTS} are allowed")
    return parts[:_MAX_PARTS]


def _check_resnet(backbone: Section) -> None:
    depths = _BASIC_DEPTHS + _BOTTLENECK_DEPTHS
    message = backbone.message
    backbone.require(message.depth in depths, "depth", f"one of {list(depths)} is allowed")
    # Basic blocks have no convolution in groups, and their width is fixed in the paper.
    if message.depth in _BASIC_DEPTHS:
        backbone.only("groups", 1)
        backbone.only("width_per_group", 64)
        backbone.only("strides_in_1x1", False)
    else:
        backbone.counts(_MAX_GROUPS, "groups", "width_per_group")


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


def _check_pyramid(pyramid: Section) -> None:
    message = pyramid.message
    kind = message.DESCRIPTOR.name
    if kind == "SsdLayers":
        if any(not 1 <= channels <= MAX_CHANNELS for channels in message.channels):
            bound = "at least 1" if min(message.channels) < 1 else f"at most {MAX_CHANNELS}"
            pyramid.report("channels", f"is {list(message.channels)}; {bound} each is allowed")
        if len(message.channels) > MAX_SSD_LAYERS:
            pyramid.report(
                "channels",
                f"has {len(message.channels)} values; at most {MAX_SSD_LAYERS} are allowed",
            )
        return
    pyramid.counts(MAX_CHANNELS, "channels")
    pyramid.within("min_level", _FINEST, COARSEST)
    pyramid.within("max_level", COARSEST, MAX_LEVEL)
    if kind == "Fpn":
        _check_fpn(pyramid)
        return
    if kind == "HitPyramid":
        _check_hit_pyramid(pyramid)
        return
    pyramid.counts(MAX_REPEATS, "repeats")
    check = _check_block if kind == "MnasFpn" else _check_merging_cell
    name = "block" if kind == "MnasFpn" else "cell"
    allowed = levels_of(message)
    merges = _parts(pyramid, name)
    # Features are numbered on from the inputs, one a level: a merge may take any before it.
    for index, merge in enumerate(merges, start=len(allowed)):
        check(merge, index)
        merge.require(merge.message.level in allowed, "level", f"one of {list(allowed)} is allowed")
    # Each merge is several layers in every repeat. A config of a few lines could ask for millions.
    inputs = sum(len(merge.message.input) for merge in merges)
    merged = min(message.repeats, MAX_REPEATS) * inputs
    if merged > _MAX_MERGED:
        pyramid.report(
            name, f"merges {merged} features in all repeats; at most {_MAX_MERGED} are allowed"
        )
    # The last merges are the outputs, one a level, so that the next repeat can take them in place
    # of the backbone's features (Ghiasi et al., 2019, section 3.1).
    outputs = [merge.message.level for merge in merges[-len(allowed) :]] if allowed else []
    if sorted(outputs) != list(allowed):
        pyramid.report(
            name,
            f"ends with levels {outputs}; the last {len(allowed)} {name}s have to cover each of "
            f"{list(allowed)} once",
        )
    if kind == "NasFpn":
        _check_drop_block(pyramid)


def _check_hit_pyramid(pyramid: Section) -> None:
    needed = COARSEST - pyramid.message.min_level + 1
    for name in ("lateral", "output"):
        layers = _parts(pyramid, name)
        if len(layers) != needed:
            pyramid.report(
                name,
                f"is there {len(layers)} times; {needed} are needed, one a level of the backbone",
            )
        for layer in layers:
            _check_operations(layer)
            # The pyramid has one width, and its levels the sizes of the backbone's.
            for field in ("channels", "stride"):
                if layer.message.HasField(field):
                    layer.report(field, "has no effect in a pyramid; remove it")


def _check_fpn(pyramid: Section) -> None:
    message = pyramid.message
    if message.variant != architecture_pb2.Fpn.TWO_STAGE:
        for name in ("input_level", "output_level", "strided_levels"):
            if getattr(message, name):
                pyramid.report(name, "has no effect; it belongs to variant: TWO_STAGE")
        return
    pyramid.only("separable", False)
    entering = list(message.input_level) or list(range(message.min_level, COARSEST + 1))
    leaving = list(message.output_level) or list(range(message.min_level, message.max_level + 1))
    listed = [("input_level", entering, COARSEST), ("output_level", leaving, MAX_LEVEL)]
    for name, levels_of_feature, coarsest in listed:
        wrong = [level for level in levels_of_feature if not _FINEST <= level <= coarsest]
        if wrong:
            pyramid.report(name, f"has {wrong[0]}; {_FINEST} to {coarsest} is allowed")
            return
        # The top-down path goes from level to level, and predictions stand in this order.
        if levels_of_feature != sorted(set(levels_of_feature)):
            pyramid.report(name, f"is {levels_of_feature[:_SHOWN]}; ascending levels are needed")
            return
    for level in leaving:
        # A finer level comes from the backbone's own; only coarser ones are made here.
        if level < max(entering) and level not in entering:
            pyramid.report(
                "output_level",
                f"has {level}; the input levels {entering} or coarser ones are allowed",
            )


def _check_block(block: Section, num_features: int) -> None:
    inputs = _checked_inputs(block, num_features)
    # The gate multiplies one feature by a weight for each channel of the other.
    gated = block.message.merge == architecture_pb2.MnasFpn.SQUEEZE_EXCITE
    if gated and len(inputs) != 2:
        block.report("input", f"is {inputs}; SQUEEZE_EXCITE merges exactly 2")
    elif len(inputs) < 2:
        block.report("input", f"is {inputs}; at least 2 features are merged")
    block.counts(_MAX_EXPANSION * MAX_CHANNELS, "expanded_channels")
    check_kernel_size(block)


def _check_merging_cell(cell: Section, num_features: int) -> None:
    inputs = _checked_inputs(cell, num_features)
    if len(inputs) != 2:
        cell.report("input", f"is {inputs}; exactly 2 features are merged")


def _checked_inputs(merge: Section, num_features: int) -> list[int]:
    inputs = list(merge.message.input)
    # With more inputs than features one of them comes twice, which has a message of its own below.
    for index in dict.fromkeys(inputs[: num_features + 1]):
        if not 0 <= index < num_features:
            merge.report(
                "input", f"is {index}; 0 to {num_features - 1} is allowed, the features before it"
            )
    # Added to itself a feature is only doubled, which the normalisation takes out again.
    if len(set(inputs)) < len(inputs):
        merge.report("input", f"is {inputs}; each feature at most once")
    return inputs


def _check_drop_block(pyramid: Section) -> None:
    kept = pyramid.message.drop_block_keep_probability
    # A keep probability of 0 would drop the whole feature in every step.
    pyramid.require(
        0 < kept <= 1, "drop_block_keep_probability", "more than 0 and at most 1 is allowed"
    )
    pyramid.counts(MAX_IMAGE_SIZE, "drop_block_size")


def _check_predictor(predictor: Section) -> None:
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
            predictor.counts(MAX_CHANNELS, "depth")
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

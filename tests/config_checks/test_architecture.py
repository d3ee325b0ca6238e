"""Every check of an architecture, by its message."""

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.architectures import levels, smallest_image_size
from mnasdet.config_checks.architecture import architecture_problems
from mnasdet.detectors.network import detection_network
from mnasdet.protos import architecture_pb2
from tests.config_fragments import merge

MNASFPN = "mobilenet_v2_mnasfpn"
NAS_FPN = "resnet50_nas_fpn_7_256"
FPN = "resnet50_fpn_256"
SSDLITE = "mobilenet_v2_ssdlite"
CLASSIFIER = "mnasnet_a1"

PYRAMID = "feature_pyramid.mnasfpn"
SHARED = "box_predictor.weight_shared_convolutional_box_predictor"
SINGLE = "box_predictor.convolutional_box_predictor"
SSD_ANCHORS = "anchor_generator.ssd_anchor_generator"


def block(index, text):
    """Changes one block of the published cell."""

    def change(architecture):
        text_format.Merge(text, architecture.feature_pyramid.mnasfpn.block[index])

    return change


def cell(index, text):
    """Changes one merging cell."""

    def change(architecture):
        text_format.Merge(text, architecture.feature_pyramid.nas_fpn.cell[index])

    return change


# A published architecture, what is changed in it, and the first problem that it has then.
BAD = [
    (MNASFPN, "depth_multiplier: 0", "depth_multiplier is 0; more than 0 is allowed"),
    (MNASFPN, "min_depth: 0", "min_depth is 0; at least 1 is allowed"),
    (MNASFPN, "exit: 5", "exit is 5; 0 to 4 is allowed"),
    (MNASFPN, lambda a: a.ClearField("backbone"), "backbone is missing"),
    (
        MNASFPN,
        lambda a: a.backbone.Clear(),
        "backbone is empty; set mobilenet_v2 or mobilenet_v3 or mnasnet or resnet or amoebanet_d "
        "or base_code or operation_layers",
    ),
    (
        MNASFPN,
        "backbone { mobilenet_v2 { last_channels: 0 } }",
        "backbone.mobilenet_v2.last_channels is 0; at least 1 is allowed",
    ),
    (
        MNASFPN,
        "backbone { conv_hyperparams { batch_norm { decay: 2 } } }",
        "backbone.conv_hyperparams.batch_norm.decay is 2; 0 to 1 is allowed",
    ),
    (
        MNASFPN,
        "backbone { conv_hyperparams { sync_batch_norm { train: false } } }",
        "backbone.conv_hyperparams.sync_batch_norm.train is false; only true is supported; to "
        "freeze batch normalisation set model.ssd.freeze_batchnorm",
    ),
    (
        MNASFPN,
        "feature_pyramid { conv_hyperparams { group_norm { groups: 0 } } }",
        "feature_pyramid.conv_hyperparams.group_norm.groups is 0; at least 1 is allowed",
    ),
    (
        MNASFPN,
        "feature_pyramid { conv_hyperparams { group_norm { epsilon: 0 } } }",
        "feature_pyramid.conv_hyperparams.group_norm.epsilon is 0; more than 0 is allowed",
    ),
    (
        MNASFPN,
        "backbone { conv_hyperparams { standardize_weights: true } }",
        "backbone.conv_hyperparams.standardize_weights is true; batch_norm, sync_batch_norm or "
        "group_norm is needed beside it",
    ),
    (
        MNASFPN,
        "backbone { amoebanet_d { filters: 8 } }",
        "backbone.amoebanet_d.filters is 8; at least 16 is allowed",
    ),
    (
        FPN,
        "backbone { resnet { depth: 49 } }",
        "backbone.resnet.depth is 49; one of [10, 18, 34, 50, 101, 152] is allowed",
    ),
    (
        FPN,
        "backbone { resnet { depth: 18 groups: 32 } }",
        "backbone.resnet.groups is 32; only 1 is supported",
    ),
    (
        CLASSIFIER,
        "backbone { mnasnet { block { channels: 16 stride: 2 } } }",
        "backbone.mnasnet.block has stride 2 1 times; 4 times is needed, for stride 32",
    ),
    (
        CLASSIFIER,
        lambda a: a.backbone.mnasnet.block[0].MergeFrom(
            architecture_pb2.MnasNet.Block(se_ratio=2.0)
        ),
        "backbone.mnasnet.block[0].se_ratio is 2; 0 to 1 is allowed",
    ),
    (
        CLASSIFIER,
        "classifier { dropout: 1 }",
        "classifier.dropout is 1; 0 to less than 1 is allowed",
    ),
    (
        CLASSIFIER,
        "feature_pyramid { fpn {} }",
        "feature_pyramid has no effect beside classifier; remove one of them",
    ),
    (
        MNASFPN,
        lambda a: a.feature_pyramid.Clear(),
        "feature_pyramid is empty; set mnasfpn or fpn or nas_fpn or ssd_layers or hit",
    ),
    (
        MNASFPN,
        "feature_pyramid { mnasfpn { channels: 0 } }",
        f"{PYRAMID}.channels is 0; at least 1 is allowed",
    ),
    (
        MNASFPN,
        "feature_pyramid { mnasfpn { repeats: 0 } }",
        f"{PYRAMID}.repeats is 0; at least 1 is allowed",
    ),
    (
        MNASFPN,
        "feature_pyramid { mnasfpn { min_level: 1 } }",
        f"{PYRAMID}.min_level is 1; 2 to 5 is allowed",
    ),
    (
        MNASFPN,
        "feature_pyramid { mnasfpn { max_level: 4 } }",
        f"{PYRAMID}.max_level is 4; 5 to 12 is allowed",
    ),
    (
        MNASFPN,
        block(0, "input: 4"),
        f"{PYRAMID}.block[0].input is 4; 0 to 3 is allowed, the features before it",
    ),
    (
        MNASFPN,
        block(1, "input: 0"),
        f"{PYRAMID}.block[1].input is [0, 4, 0]; each feature at most once",
    ),
    (
        MNASFPN,
        block(1, "input: 1 merge: SQUEEZE_EXCITE"),
        f"{PYRAMID}.block[1].input is [0, 4, 1]; SQUEEZE_EXCITE merges exactly 2",
    ),
    (
        MNASFPN,
        lambda a: a.feature_pyramid.mnasfpn.block[1].input.pop(),
        f"{PYRAMID}.block[1].input is [0]; at least 2 features are merged",
    ),
    (
        MNASFPN,
        block(0, "level: 7"),
        f"{PYRAMID}.block[0].level is 7; one of [3, 4, 5, 6] is allowed",
    ),
    (
        MNASFPN,
        block(1, "level: 4"),
        f"{PYRAMID}.block ends with levels [4, 4, 5, 6]; the last 4 blocks have to cover each of "
        "[3, 4, 5, 6] once",
    ),
    (
        MNASFPN,
        block(0, "expanded_channels: 0"),
        f"{PYRAMID}.block[0].expanded_channels is 0; at least 1 is allowed",
    ),
    (
        MNASFPN,
        block(0, "kernel_size: 2"),
        f"{PYRAMID}.block[0].kernel_size is 2; only odd sizes are allowed",
    ),
    (
        NAS_FPN,
        cell(0, "input: 4"),
        "feature_pyramid.nas_fpn.cell[0].input is [1, 3, 4]; exactly 2 features are merged",
    ),
    (
        NAS_FPN,
        cell(2, "level: 4"),
        "feature_pyramid.nas_fpn.cell ends with levels [4, 4, 5, 7, 6]; the last 5 cells have to "
        "cover each of [3, 4, 5, 6, 7] once",
    ),
    (
        NAS_FPN,
        "feature_pyramid { nas_fpn { drop_block_keep_probability: 0 } }",
        "feature_pyramid.nas_fpn.drop_block_keep_probability is 0; more than 0 and at most 1 is "
        "allowed",
    ),
    (
        FPN,
        "feature_pyramid { fpn { min_level: 6 } }",
        "feature_pyramid.fpn.min_level is 6; 2 to 5 is allowed",
    ),
    (
        SSDLITE,
        "feature_pyramid { ssd_layers { channels: [512, 0, 256, 128] } }",
        "feature_pyramid.ssd_layers.channels is [512, 0, 256, 128]; at least 1 each is allowed",
    ),
    (MNASFPN, lambda a: a.ClearField("box_predictor"), "box_predictor is missing"),
    (
        MNASFPN,
        f"{SHARED.replace('.', ' { ')} {{ kernel_size: 4 }} }}",
        f"{SHARED}.kernel_size is 4; only odd sizes are allowed",
    ),
    (
        SSDLITE,
        f"{SINGLE.replace('.', ' { ')} {{ kernel_size: 1 }} }}",
        f"{SINGLE}.kernel_size is 1; use_depthwise needs at least 3",
    ),
    (
        SSDLITE,
        f"{SINGLE.replace('.', ' { ')} {{ box_code_size: 5 }} }}",
        f"{SINGLE}.box_code_size is 5; only 4 is supported",
    ),
    (
        SSDLITE,
        f"{SINGLE.replace('.', ' { ')} {{ apply_sigmoid_to_scores: true }} }}",
        f"{SINGLE}.apply_sigmoid_to_scores is true; only false is supported",
    ),
    (
        SSDLITE,
        f"{SINGLE.replace('.', ' { ')} {{ use_dropout: true dropout_keep_probability: 0 }} }}",
        f"{SINGLE}.dropout_keep_probability is 0; more than 0 and at most 1 is allowed",
    ),
    (
        SSDLITE,
        f"{SINGLE.replace('.', ' { ')} {{ box_encodings_clip_range {{ min: 1 max: -1 }} }} }}",
        f"{SINGLE}.box_encodings_clip_range.min is 1; at most max, -1, is allowed",
    ),
    (
        SSDLITE,
        f"{SHARED.replace('.', ' { ')} {{ conv_hyperparams {{}} }} }}",
        f"{SHARED} needs features of the same channels, which ssd_layers does not give; use "
        "convolutional_box_predictor",
    ),
    (
        MNASFPN,
        f"{SSD_ANCHORS.replace('.', ' { ')} {{ num_layers: 4 aspect_ratios: 1 }} }}",
        f"{SSD_ANCHORS}.reduce_boxes_in_lowest_layer is true; false is needed where all layers "
        "share one predictor",
    ),
    (MNASFPN, lambda a: a.ClearField("anchor_generator"), "anchor_generator is missing"),
    (
        FPN,
        "anchor_generator { multiscale_anchor_generator { min_level: 2 } }",
        "anchor_generator.multiscale_anchor_generator.min_level is 2; 3 is needed, as in the "
        "feature pyramid",
    ),
    (
        FPN,
        "anchor_generator { multiscale_anchor_generator { normalize_coordinates: false } }",
        "anchor_generator.multiscale_anchor_generator.normalize_coordinates is false; only true "
        "is supported",
    ),
    (
        SSDLITE,
        f"{SSD_ANCHORS.replace('.', ' { ')} {{ num_layers: 5 }} }}",
        f"{SSD_ANCHORS}.num_layers is 5; 6 is needed, one for each feature that predicts",
    ),
    (
        SSDLITE,
        f"{SSD_ANCHORS.replace('.', ' { ')} {{ min_scale: 1 }} }}",
        f"{SSD_ANCHORS}.min_scale is 1; at most max_scale, 0.95, is allowed",
    ),
    (
        SSDLITE,
        f"{SSD_ANCHORS.replace('.', ' { ')} {{ scales: [0.1, 0.2] }} }}",
        f"{SSD_ANCHORS}.scales has 2 values; num_layers is 6",
    ),
    (
        SSDLITE,
        f"{SSD_ANCHORS.replace('.', ' { ')} {{ scales: [0.1, 0.2, 0.3, 0.4, 0.5, 0] }} }}",
        f"{SSD_ANCHORS}.scales is [0.1, 0.2, 0.3, 0.4, 0.5, 0.0]; above 0",
    ),
    (
        SSDLITE,
        f"{SSD_ANCHORS.replace('.', ' { ')} {{ height_stride: [8, 16, 32, 64, 128, 256] }} }}",
        f"{SSD_ANCHORS}.height_stride and width_stride go together; give both or none",
    ),
    # No upper bound is in the way of a published network; a slip would fill the memory.
    (MNASFPN, "depth_multiplier: 99", "depth_multiplier is 99; at most 16 is allowed"),
    (
        MNASFPN,
        "input { height: 2147483647 width: 320 }",
        "input.height is 2147483647; at most 8192 is allowed",
    ),
    (MNASFPN, "input { height: 320 }", "input.width is 0; at least 1 is allowed"),
    (
        MNASFPN,
        "feature_pyramid { mnasfpn { repeats: 2147483647 } }",
        f"{PYRAMID}.repeats is 2147483647; at most 64 is allowed",
    ),
    (
        MNASFPN,
        block(0, "kernel_size: 101"),
        f"{PYRAMID}.block[0].kernel_size is 101; at most 31 is allowed",
    ),
    (
        MNASFPN,
        "box_predictor { weight_shared_convolutional_box_predictor { "
        "num_layers_before_predictor: 1000000 } }",
        f"{SHARED}.num_layers_before_predictor is 1000000; at most 64 is allowed",
    ),
    (
        CLASSIFIER,
        lambda a: a.backbone.mnasnet.block[2].MergeFrom(
            architecture_pb2.MnasNet.Block(repeats=9999)
        ),
        "backbone.mnasnet.block[2].repeats is 9999; at most 64 is allowed",
    ),
    (
        MNASFPN,
        "backbone { amoebanet_d { num_cells: 2147483647 } }",
        "backbone.amoebanet_d.num_cells is 2147483647; at most 256 is allowed",
    ),
    (
        SSDLITE,
        "feature_pyramid { ssd_layers { channels: [512, 2147483647] } }",
        "feature_pyramid.ssd_layers.channels is [512, 2147483647]; at most 8192 each is allowed",
    ),
    (
        CLASSIFIER,
        lambda a: a.backbone.mnasnet.block.extend([architecture_pb2.MnasNet.Block()] * 300),
        "backbone.mnasnet.block is there 307 times; at most 256 are allowed",
    ),
]


def base_code(code):
    """Puts SM-NAS's backbone in the place of another."""

    def change(architecture):
        architecture.backbone.base_code.code = code

    return change


def two_stage_fpn(text):
    def change(architecture):
        architecture.feature_pyramid.Clear()
        text_format.Merge(f"variant: TWO_STAGE {text}", architecture.feature_pyramid.fpn)

    return change


BAD += [
    (
        FPN,
        base_code("basicblock_64_1-21-31-12"),
        'backbone.base_code.code cannot be read: base code "basicblock_64_1-21-31-12", character '
        '20: "3": a block is 1, which keeps the width, or 2, which doubles it',
    ),
    (
        FPN,
        base_code(f"basicblock_8_{'1' * 300}-1-1-1"),
        "backbone.base_code.code has 303 blocks; at most 256 are allowed",
    ),
    (
        FPN,
        base_code("bottleneck_64_2222-2-2-2"),
        "backbone.base_code.code ends with 32768 channels; at most 8192 are allowed",
    ),
    (
        FPN,
        "feature_pyramid { fpn { output_level: [3, 4] } }",
        "feature_pyramid.fpn.output_level has no effect; it belongs to variant: TWO_STAGE",
    ),
    (
        FPN,
        "feature_pyramid { fpn { strided_levels: true } }",
        "feature_pyramid.fpn.strided_levels has no effect; it belongs to variant: TWO_STAGE",
    ),
    (
        FPN,
        two_stage_fpn("separable: true"),
        "feature_pyramid.fpn.separable is true; only false is supported",
    ),
    (
        FPN,
        two_stage_fpn("input_level: [1, 2]"),
        "feature_pyramid.fpn.input_level has 1; 2 to 5 is allowed",
    ),
    (
        FPN,
        two_stage_fpn("output_level: [5, 13]"),
        "feature_pyramid.fpn.output_level has 13; 2 to 12 is allowed",
    ),
    (
        FPN,
        two_stage_fpn("input_level: [5, 3]"),
        "feature_pyramid.fpn.input_level is [5, 3]; ascending levels are needed",
    ),
    (
        FPN,
        two_stage_fpn("input_level: [3, 5] output_level: [3, 4, 5, 6]"),
        "feature_pyramid.fpn.output_level has 4; the input levels [3, 5] or coarser ones are "
        "allowed",
    ),
    (
        FPN,
        two_stage_fpn("min_level: 2 max_level: 6"),
        "anchor_generator.multiscale_anchor_generator.min_level is 3; 2 is needed, as in the "
        "feature pyramid",
    ),
]


@pytest.mark.parametrize(("name", "change", "expected"), BAD)
def test_check_names_field_value_and_what_is_allowed(name, change, expected):
    architecture = config.load_architecture(name)
    if callable(change):
        change(architecture)
    else:
        merge(change, architecture)
    assert architecture_problems(architecture)[0] == expected


def test_hyperparams_without_normalisation_are_sound():
    architecture = config.load_architecture(SSDLITE)
    merge("feature_pyramid { conv_hyperparams { activation: SWISH } }", architecture)
    assert architecture_problems(architecture) == []


@pytest.mark.parametrize(
    ("name", "expected_levels", "expected_size"),
    [
        # Level l has stride 2^l; a cell needs every level smaller than the one before.
        (MNASFPN, [3, 4, 5, 6], 64),
        (NAS_FPN, [3, 4, 5, 6, 7], 128),
        (FPN, [3, 4, 5, 6, 7], 32),
        (SSDLITE, [4, 5, 6, 7, 8, 9], 32),
        (CLASSIFIER, [], 32),
    ],
)
def test_levels_and_the_smallest_image(name, expected_levels, expected_size):
    architecture = config.load_architecture(name)
    assert list(levels(architecture)) == expected_levels
    assert smallest_image_size(architecture) == expected_size


def test_levels_of_a_pyramid_with_gaps_and_without_a_pyramid():
    architecture = config.load_architecture(FPN)
    two_stage_fpn("input_level: [3, 5] output_level: [3, 5, 7]")(architecture)
    assert list(levels(architecture)) == [3, 5, 7]
    assert architecture_problems(architecture) == []
    # The backbone's last level predicts, or with the last stage in the head the one before.
    architecture.ClearField("feature_pyramid")
    assert list(levels(architecture)) == [5]
    architecture.region_head.fully_connected.SetInParent()
    assert list(levels(architecture)) == [5]
    architecture.region_head.last_backbone_stage.SetInParent()
    assert list(levels(architecture)) == [4]


def test_a_detector_needs_no_pyramid():
    architecture = config.load_architecture(FPN)
    architecture.ClearField("feature_pyramid")
    generator = architecture.anchor_generator.multiscale_anchor_generator
    generator.min_level = generator.max_level = 5
    assert architecture_problems(architecture) == []
    network = detection_network(architecture, (128, 96), 2)
    assert network.feature_sizes == [(4, 3)]
    assert network.predictions["box_encodings"].shape == (4 * 3 * 9, 4)

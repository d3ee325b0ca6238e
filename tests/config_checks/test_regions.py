"""Every check of the two stages of an architecture, by its message."""

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.config_checks.architecture import architecture_problems
from mnasdet.protos import architecture_pb2
from tests.config_fragments import merge

FPN = "faster_rcnn_resnet50_fpn"
CASCADE = "cascade_rcnn_resnet50_fpn"
GUIDED = "ga_faster_rcnn_resnet50_fpn"

# Ren et al.'s, without a pyramid.
SINGLE = """
  backbone { resnet { depth: 50 } }
  region_proposal {}
  region_head { last_backbone_stage {} }
  anchor_generator { grid_anchor_generator { scales: 1 aspect_ratios: 1 } }
"""

ALIGN = "region_head.region_align"
MULTISCALE = "anchor_generator { multiscale_anchor_generator { min_level: 2 max_level: 6 } }"


def architecture_of(name):
    if name == SINGLE:
        return text_format.Parse(SINGLE, architecture_pb2.Architecture())
    return config.load_architecture(name)


@pytest.mark.parametrize("name", [FPN, CASCADE, GUIDED, SINGLE])
def test_sound(name):
    assert architecture_problems(architecture_of(name)) == []


def test_both_stages_are_needed():
    architecture = architecture_of(FPN)
    architecture.ClearField("region_proposal")
    assert architecture_problems(architecture) == ["region_proposal is missing"]
    architecture = architecture_of(FPN)
    architecture.region_head.ClearField("fully_connected")
    (problem,) = architecture_problems(architecture)
    assert problem.startswith("region_head is empty; set fully_connected or last_backbone_stage")


BAD = [
    (
        FPN,
        "region_proposal { channels: 0 }",
        "region_proposal.channels is 0; at least 1 is allowed",
    ),
    (
        FPN,
        "region_proposal { kernel_size: 4 }",
        "region_proposal.kernel_size is 4; only odd sizes are allowed",
    ),
    (
        FPN,
        "region_proposal { max_proposals: 0 }",
        "region_proposal.max_proposals is 0; at least 1 is allowed",
    ),
    (
        FPN,
        "region_proposal { conv_hyperparams { op: FC } }",
        "region_proposal.conv_hyperparams.op is FC; only CONV is supported",
    ),
    (
        GUIDED,
        "region_proposal { guided_anchoring { deformable_groups: 3 } }",
        "region_proposal.guided_anchoring.deformable_groups is 3; a divisor of channels, 256, is "
        "needed",
    ),
    (
        GUIDED,
        "region_proposal { guided_anchoring { deformable_kernel_size: 2 } }",
        "region_proposal.guided_anchoring.deformable_kernel_size is 2; odd sizes below 16 are "
        "allowed",
    ),
    (
        GUIDED,
        "region_proposal { guided_anchoring { location_threshold: 2 } }",
        "region_proposal.guided_anchoring.location_threshold is 2; 0 to 1 is allowed",
    ),
    (GUIDED, MULTISCALE, "anchor_generator has no effect beside guided_anchoring; remove it"),
    (
        FPN,
        "box_predictor { convolutional_box_predictor {} }",
        "box_predictor has no effect beside region_head; remove one of them",
    ),
    (FPN, "deep_supervision: true", "deep_supervision is true; only false is supported"),
    (FPN, "region_head { dropout: 1 }", "region_head.dropout is 1; 0 to less than 1 is allowed"),
    (
        FPN,
        "region_head { hyperparams { regularizer { l2_regularizer { weight: -1 } } } }",
        "region_head.hyperparams.regularizer.l2_regularizer.weight is -1; at least 0 is allowed",
    ),
    (
        FPN,
        "region_head { fully_connected { channels: 9999 } }",
        "region_head.fully_connected.channels is 9999; at most 8192 is allowed",
    ),
    (FPN, "region_head { region_align { size: 0 } }", f"{ALIGN}.size is 0; at least 1 is allowed"),
    (
        FPN,
        "region_head { region_align { max_pool_size: 8 } }",
        f"{ALIGN}.max_pool_size is 8; at most 7 is allowed",
    ),
    (
        FPN,
        "region_head { region_align { finest_scale: 0 } }",
        f"{ALIGN}.finest_scale is 0; more than 0 is allowed",
    ),
    (
        CASCADE,
        "region_head { stage { iou_threshold: 1.5 } }",
        "region_head.stage[0].iou_threshold is 1.5; 0 to 1 is allowed",
    ),
    (
        CASCADE,
        "region_head { stage { box_scales: [10, 10, 0, 5] } }",
        "region_head.stage[0].box_scales is [10.0, 10.0, 0.0, 5.0]; 4 numbers above 0 are allowed",
    ),
    (
        SINGLE,
        "region_head { last_backbone_stage { stride: 3 } }",
        "region_head.last_backbone_stage.stride is 3; 1 to 2 is allowed",
    ),
    (
        SINGLE,
        "backbone { base_code { code: 'basicblock_64_1-21-21-21' } }",
        "region_head.last_backbone_stage needs backbone.resnet; use fully_connected",
    ),
    (
        FPN,
        "region_head { last_backbone_stage {} }",
        "region_head.last_backbone_stage has no place beside feature_pyramid; use fully_connected",
    ),
    (
        SINGLE,
        "anchor_generator { grid_anchor_generator { width_stride: 32 } }",
        "anchor_generator.grid_anchor_generator.width_stride is 32; only 16 is supported",
    ),
    (
        SINGLE,
        "anchor_generator { grid_anchor_generator { scales: 0 } }",
        "anchor_generator.grid_anchor_generator.scales is [0.0]; more than 0 and at most 1000",
    ),
]


@pytest.mark.parametrize(("name", "change", "problem"), BAD)
def test_what_is_wrong_is_named(name, change, problem):
    architecture = architecture_of(name)
    merge(change, architecture)
    assert architecture_problems(architecture) == [problem]


def test_grid_anchors_need_scales_and_ratios():
    architecture = architecture_of(SINGLE)
    architecture.anchor_generator.grid_anchor_generator.Clear()
    assert architecture_problems(architecture) == [
        "anchor_generator.grid_anchor_generator.scales is empty; at least one is needed",
        "anchor_generator.grid_anchor_generator.aspect_ratios is empty; at least one is needed",
    ]

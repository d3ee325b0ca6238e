"""All kinds of parts, with their options and what is usual for them."""

from __future__ import annotations

from mnasdet.architecture_string.base_code import read_base_code, write_base_code
from mnasdet.architecture_string.chosen_layers import (
    LAYER_START,
    PYRAMID_START,
    read_backbone,
    read_pyramid,
    write_backbone,
    write_pyramid,
)
from mnasdet.architecture_string.grammar import Blocks, Kind, options
from mnasdet.architecture_string.mnasnet_layers import read_mnasnet, write_mnasnet
from mnasdet.architecture_string.pyramid_blocks import (
    read_mnasfpn,
    read_nas_fpn,
    write_mnasfpn,
    write_nas_fpn,
)
from mnasdet.architecture_string.region_parts import (
    HEAD_START,
    PROPOSAL_START,
    read_region_head,
    read_region_proposal,
    write_region_head,
    write_region_proposal,
)
from mnasdet.protos import architecture_pb2

_LEVELS = "from=min_level to=max_level"
_SQUARE_AND_OBLONG = "aspect_ratios: [1.0, 2.0, 0.5]"
# The predictors' hyper-parameters of the OD API's mobile configs and of RetinaNet, which the string
# leaves out. 4.6 and 4.595 are log(99): a prior of 0.01 for every class (Lin et al., 2017, section
# 3.3).
_MOBILE = """
  class_prediction_bias_init: -4.6
  conv_hyperparams {
    activation: RELU_6
    regularizer { l2_regularizer { weight: 4e-5 } }
"""
_SHARED = f"""
  use_depthwise: true share_prediction_tower: true {_MOBILE}
    initializer {{ random_normal_initializer {{ stddev: 0.01 }} }}
    batch_norm {{ scale: true decay: 0.997 epsilon: 0.001 }}
  }}
"""
_RETINANET = """
  class_prediction_bias_init: -4.595
  conv_hyperparams {
    activation: RELU
    regularizer { l2_regularizer { weight: 1e-4 } }
    initializer { random_normal_initializer { stddev: 0.01 } }
    batch_norm { scale: true decay: 0.997 epsilon: 1e-4 }
  }
"""
_SSD = f"""
  use_dropout: false {_MOBILE}
    initializer {{ random_normal_initializer {{ stddev: 0.03 }} }}
    batch_norm {{ scale: true decay: 0.97 epsilon: 0.001 }}
  }}
"""


def _octaves(scale: float) -> str:
    return (
        f"multiscale_anchor_generator {{ anchor_scale: {scale} scales_per_octave: 3 "
        f"{_SQUARE_AND_OBLONG} }}"
    )


_WEIGHT_SHARED = "box_predictor.weight_shared_convolutional_box_predictor"
_CONVOLUTIONAL = "box_predictor.convolutional_box_predictor"
_TOWER = "d=depth! n=num_layers_before_predictor! k=kernel_size"
_SINGLE = options("k=kernel_size! n=num_layers_before_predictor min=min_depth max=max_depth")

KINDS = {
    "mobilenet_v2": Kind("backbone.mobilenet_v2", options("w=depth_multiplier l=last_channels")),
    "mobilenet_v3_large": Kind(
        "backbone.mobilenet_v3",
        options("", halved=("halved", True)),
        "size: LARGE",
        ("size", architecture_pb2.MobileNetV3.LARGE),
    ),
    "mobilenet_v3_small": Kind(
        "backbone.mobilenet_v3",
        options("", halved=("halved", True)),
        "size: SMALL",
        ("size", architecture_pb2.MobileNetV3.SMALL),
    ),
    "mnasnet": Kind(
        "backbone.mnasnet",
        options("s=stem_channels! l=last_channels"),
        blocks=Blocks("(?:ir|ds|cn)_", write_mnasnet, read_mnasnet),
    ),
    "resnet": Kind(
        "backbone.resnet",
        options("=depth! g=groups w=width_per_group", early=("strides_in_1x1", True)),
    ),
    "amoebanet_d": Kind("backbone.amoebanet_d", options("n=num_cells! f=filters!")),
    "base_code": Kind(
        # All that follows the name is the code.
        "backbone.base_code",
        (),
        blocks=Blocks("", write_base_code, read_base_code),
    ),
    "operations": Kind(
        "backbone.operation_layers",
        options("s=stem_channels! l=last_channels"),
        blocks=Blocks(LAYER_START, write_backbone, read_backbone),
    ),
    "mnasfpn": Kind(
        "feature_pyramid.mnasfpn",
        options(
            f"c=channels! r=repeats! {_LEVELS}",
            nosdo=("size_dependent_ordering", False),
            noresidual=("cell_residual", False),
        ),
        blocks=Blocks(r"L\d", write_mnasfpn, read_mnasfpn),
        anchors=_octaves(3.0),
    ),
    "fpn": Kind(
        "feature_pyramid.fpn",
        options(
            f"c=channels! {_LEVELS} in=input_level out=output_level",
            od=("variant", architecture_pb2.Fpn.OBJECT_DETECTION_API),
            two=("variant", architecture_pb2.Fpn.TWO_STAGE),
            sep=("separable", True),
            strided=("strided_levels", True),
        ),
        anchors=_octaves(4.0),
    ),
    "nas_fpn": Kind(
        "feature_pyramid.nas_fpn",
        options(f"c=channels! r=repeats! {_LEVELS}", sep=("separable", True)),
        blocks=Blocks(r"L\d", write_nas_fpn, read_nas_fpn),
        anchors=_octaves(4.0),
    ),
    "hit": Kind(
        "feature_pyramid.hit",
        options(f"c=channels! {_LEVELS}"),
        blocks=Blocks(PYRAMID_START, write_pyramid, read_pyramid),
        anchors=_octaves(4.0),
    ),
    "ssd_layers": Kind(
        "feature_pyramid.ssd_layers",
        options("c=channels!", sep=("separable", True)),
        anchors="ssd_anchor_generator { aspect_ratios: [1.0, 2.0, 0.5, 3.0, 0.3333] }",
    ),
    "shared": Kind(
        _WEIGHT_SHARED,
        options(_TOWER, two=("share_prediction_tower", False)),
        _SHARED,
        ("use_depthwise", True),
    ),
    "retinanet": Kind(
        _WEIGHT_SHARED,
        options(_TOWER, one=("share_prediction_tower", True)),
        _RETINANET,
        ("use_depthwise", False),
    ),
    "ssdlite": Kind(
        _CONVOLUTIONAL, _SINGLE, f"use_depthwise: true {_SSD}", ("use_depthwise", True)
    ),
    "ssd": Kind(_CONVOLUTIONAL, _SINGLE, _SSD, ("use_depthwise", False)),
    "multiscale": Kind(
        "anchor_generator.multiscale_anchor_generator",
        options(f"a=anchor_scale! o=scales_per_octave! r=aspect_ratios {_LEVELS}"),
        _SQUARE_AND_OBLONG,
    ),
    "ssd_anchors": Kind(
        "anchor_generator.ssd_anchor_generator",
        options(
            "n=num_layers! min=min_scale max=max_scale s=scales r=aspect_ratios! "
            "i=interpolated_scale_aspect_ratio hs=height_stride ws=width_stride "
            "ho=height_offset wo=width_offset h=base_anchor_height w=base_anchor_width",
            all=("reduce_boxes_in_lowest_layer", False),
        ),
    ),
    "grid": Kind(
        "anchor_generator.grid_anchor_generator",
        options(
            "h=height! w=width! s=scales! r=aspect_ratios! "
            "hs=height_stride ws=width_stride ho=height_offset wo=width_offset"
        ),
    ),
    "rpn": Kind(
        "region_proposal",
        options(
            "c=channels! k=kernel_size n=max_proposals",
            softmax=("objectness", architecture_pb2.RegionProposal.SOFTMAX),
            own=("level_predictions", True),
        ),
        blocks=Blocks(PROPOSAL_START, write_region_proposal, read_region_proposal),
    ),
    "rcnn": Kind(
        "region_head",
        options("d=dropout", agnostic=("class_agnostic_boxes", True)),
        blocks=Blocks(HEAD_START, write_region_head, read_region_head),
    ),
    "classifier": Kind("classifier", options("h=hidden_channels d=dropout")),
    "net": Kind(
        "",
        options("w=depth_multiplier m=min_depth x=exit i=input", deep=("deep_supervision", True)),
    ),
}

# The order of the parts in a string.
ORDER = (
    "backbone",
    "feature_pyramid",
    "classifier",
    "region_proposal",
    "region_head",
    "box_predictor",
    "anchor_generator",
    "",
)

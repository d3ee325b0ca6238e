"""The rules that the two stages of a two-stage detector's architecture have to fulfil."""

from __future__ import annotations

import math

from mnasdet.config_checks.layers import (
    MAX_CHANNELS,
    MAX_PREDICTOR_LAYERS,
    check_hyperparams,
    check_hyperparams_of,
    check_kernel_size,
    check_operations,
    parts_of,
)
from mnasdet.config_checks.section import Section

# For one image. The papers have 2000 at most; a head runs for every one.
MAX_PROPOSALS = 100_000

_BOX_CODE_SIZE = 4

# Upper bounds, several times what any published network has.
_MAX_BINS = 64  # RoIAlign has 7 or 14.
_MAX_SAMPLES = 16  # 2.
_MAX_STAGES = 16  # SM-NAS has 4.


def check_regions(root: Section) -> None:
    """Checks the proposals and the head of an architecture that has a head."""
    message = root.message
    if proposal := root.needed("region_proposal"):
        _check_proposal(proposal)
    # The regions' head predicts in the place of these.
    if message.HasField("box_predictor"):
        root.report("box_predictor", "has no effect beside region_head; remove one of them")
    root.only("deep_supervision", False)
    root.only("exit", 0)
    if message.feature_pyramid.HasField("ssd_layers"):
        root.report(
            "feature_pyramid.ssd_layers",
            "has features of different channels, and one head predicts from all; use fpn",
        )
    ssd = message.anchor_generator.ssd_anchor_generator
    if message.anchor_generator.HasField("ssd_anchor_generator") and (
        ssd.reduce_boxes_in_lowest_layer
    ):
        root.problems.append(
            "anchor_generator.ssd_anchor_generator.reduce_boxes_in_lowest_layer is true; false is "
            "needed where all layers share one predictor"
        )
    head = root.child("region_head")
    _check_align(head.child("region_align"))
    if layers := head.chosen("layers_oneof"):
        match layers.message.DESCRIPTOR.name:
            case "FullyConnectedLayers":
                layers.counts(MAX_PREDICTOR_LAYERS, "num_layers", minimum=0)
                layers.counts(MAX_CHANNELS, "channels")
            case "LastBackboneStage":
                _check_last_stage(root, layers)
            case "ChosenLayers":
                layers.counts(MAX_CHANNELS, "fc_channels")
                for layer in parts_of(layers, "layer"):
                    check_operations(layer)
                    layer.counts(MAX_CHANNELS, "channels")
                    layer.within("stride", 1, 2)
    dropout = head.message.dropout
    # dropout is the share that is dropped: at 1 the head would see nothing but zeros.
    head.require(0 <= dropout < 1, "dropout", "0 to less than 1 is allowed")
    if head.message.HasField("hyperparams"):
        check_hyperparams(head.child("hyperparams"))
    _check_stages(head)


def _check_proposal(proposal: Section) -> None:
    message = proposal.message
    proposal.counts(MAX_CHANNELS, "channels")
    check_kernel_size(proposal)
    proposal.counts(MAX_PROPOSALS, "max_proposals")
    check_hyperparams_of(proposal)
    if not message.HasField("guided_anchoring"):
        return
    guided = proposal.child("guided_anchoring")
    guided.counts(MAX_CHANNELS, "deformable_groups")
    # Every group moves as many channels.
    guided.require(
        message.channels % max(guided.message.deformable_groups, 1) == 0,
        "deformable_groups",
        f"a divisor of channels, {message.channels}, is needed",
    )
    kernel = guided.message.deformable_kernel_size
    guided.require(
        0 < kernel < _MAX_SAMPLES and kernel % 2 == 1,
        "deformable_kernel_size",
        f"odd sizes below {_MAX_SAMPLES} are allowed",
    )
    guided.positive("anchor_scale")
    guided.within("location_threshold", 0, 1)


def _check_align(align: Section) -> None:
    message = align.message
    align.counts(_MAX_BINS, "size")
    align.counts(_MAX_SAMPLES, "sampling_ratio")
    align.counts(max(message.size, 1), "max_pool_size")
    align.counts(_MAX_BINS, "max_pool_stride")
    align.positive("finest_scale")


def _check_last_stage(root: Section, last: Section) -> None:
    """Checks that there is a last stage, and that the regions have the features that it takes."""
    if not root.message.backbone.HasField("resnet"):
        last.problems.append(f"{last.path} needs backbone.resnet; use fully_connected")
    # A pyramid's features have other channels, and the last stage has run for the image by then.
    if root.message.HasField("feature_pyramid"):
        last.problems.append(
            f"{last.path} has no place beside feature_pyramid; use fully_connected"
        )
    last.within("stride", 1, 2)


def _check_stages(head: Section) -> None:
    stages = head.children("stage")
    if len(stages) > _MAX_STAGES:
        head.report("stage", f"is there {len(stages)} times; at most {_MAX_STAGES} are allowed")
    for stage in stages[:_MAX_STAGES]:
        stage.within("iou_threshold", 0, 1)
        stage.at_least("loss_weight", 0)
        scales = [float(f"{scale:g}") for scale in stage.message.box_scales]
        # The coder multiplies by these scales: 0 would lose the box, less than 0 turn it inside
        # out.
        if len(scales) not in (0, _BOX_CODE_SIZE) or not all(0 < one < math.inf for one in scales):
            stage.report("box_scales", f"is {scales}; {_BOX_CODE_SIZE} numbers above 0 are allowed")

"""The rules that a backbone has to fulfil."""

from __future__ import annotations

from mnasdet import base_codes
from mnasdet.architectures import COARSEST
from mnasdet.config_checks.layers import (
    MAX_CHANNELS,
    MAX_DEPTH_MULTIPLIER,
    MAX_EXPANSION,
    MAX_PARTS,
    MAX_REPEATS,
    check_kernel_size,
    check_operations,
    parts_of,
)
from mnasdet.config_checks.section import Section
from mnasdet.errors import ConfigError

# ResNets with basic blocks and with bottlenecks.
_BASIC_DEPTHS = (10, 18, 34)
_BOTTLENECK_DEPTHS = (50, 101, 152)

# The stem of AmoebaNet-D has a quarter of F filters, and its bottlenecks a quarter of those: below
# 16 a bottleneck would have no filters at all.
_AMOEBANET_MIN_FILTERS = 16

# Upper bounds, several times what any published network has.
_MAX_CELLS = 256  # AmoebaNet-D has 18.
_MAX_GROUPS = 1024  # ResNeXt has 32.
# Layers of all blocks with their repeats; ResNet-152 has 50 blocks.
_MAX_LAYERS = 1024


def check_backbone(backbone: Section) -> None:
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
    if network.num_blocks > MAX_PARTS:
        backbone.report("code", f"has {network.num_blocks} blocks; at most {MAX_PARTS} are allowed")
    elif max(network.widths) > MAX_CHANNELS:
        backbone.report(
            "code", f"ends with {max(network.widths)} channels; at most {MAX_CHANNELS} are allowed"
        )


def _check_mnasnet(backbone: Section) -> None:
    backbone.counts(MAX_CHANNELS, "stem_channels", "last_channels")
    blocks = parts_of(backbone, "block")
    for block in blocks:
        block.counts(MAX_REPEATS, "repeats")
        block.counts(MAX_EXPANSION, "expansion")
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
    layers = parts_of(backbone, "layer")
    for layer in layers:
        check_operations(layer)
        layer.counts(MAX_CHANNELS, "channels")
        layer.within("stride", 1, 2)
    _check_strides(backbone, "layer", layers)


def _check_strides(backbone: Section, name: str, layers: list[Section]) -> None:
    strided = sum(layer.message.stride == 2 for layer in layers)
    # The stem has stride 2 as well. Pyramids and heads take the last feature of each stride.
    if strided != COARSEST - 1:
        backbone.report(
            name, f"has stride 2 {strided} times; {COARSEST - 1} times is needed, for stride 32"
        )


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

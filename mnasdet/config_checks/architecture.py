"""What an architecture has to fulfil beyond its syntax."""

from __future__ import annotations

import math

from mnasdet.config_checks.section import Section
from mnasdet.protos import architecture_pb2

# The levels that a backbone gives.
_BACKBONE_LEVELS = (3, 5)


def architecture_problems(architecture: architecture_pb2.Architecture) -> list[str]:
    """All problems of an architecture; paths start at its own fields."""
    root = Section(architecture, "", [])
    root.positive("depth_multiplier")
    root.at_least("min_depth", 1)
    if backbone := root.selected("backbone", "backbone_oneof"):
        backbone.positive("depth_multiplier")
    pyramid = root.selected("feature_pyramid", "feature_pyramid_oneof")
    if pyramid:
        _check_mnasfpn(pyramid)
    if predictor := root.selected("box_predictor", "box_predictor_oneof"):
        _check_predictor(predictor)
    if anchors := root.selected("anchor_generator", "anchor_generator_oneof"):
        anchors.positive("anchor_scale")
        anchors.at_least("scales_per_octave", 1)
        if any(not 0 < ratio < math.inf for ratio in anchors.message.aspect_ratios):
            anchors.report("aspect_ratios", f"is {list(anchors.message.aspect_ratios)}; above 0")
        for name in ("min_level", "max_level"):
            if pyramid:
                level = getattr(pyramid.message, name)
                anchors.require(
                    getattr(anchors.message, name) == level,
                    name,
                    f"{level} is needed, the feature pyramid's",
                )
    return root.problems


def _check_predictor(predictor: Section) -> None:
    predictor.at_least("num_layers_before_predictor", 0)
    if predictor.message.num_layers_before_predictor > 0:
        predictor.at_least("depth", 1)
    _check_kernel_size(predictor)
    if hyperparams := predictor.needed("conv_hyperparams"):
        check_hyperparams(hyperparams)


def _check_kernel_size(section: Section) -> None:
    size = section.message.kernel_size
    section.require(size > 0 and size % 2 == 1, "kernel_size", "only odd sizes are allowed")


def _check_mnasfpn(pyramid: Section) -> None:
    message = pyramid.message
    pyramid.at_least("channels", 1)
    pyramid.at_least("repeats", 1)
    finest, coarsest = _BACKBONE_LEVELS
    pyramid.within("min_level", finest, coarsest)
    pyramid.at_least("max_level", coarsest)
    levels = range(message.min_level, message.max_level + 1)
    blocks = pyramid.children("block")
    for index, block in enumerate(blocks, start=len(levels)):
        _check_block(block, index, levels)
    outputs = [block.message.level for block in blocks[-len(levels) :]] if levels else []
    if sorted(outputs) != list(levels):
        pyramid.report(
            "block",
            f"ends with levels {outputs}; the last {len(levels)} blocks have to cover each of "
            f"{list(levels)} once",
        )


def _check_block(block: Section, num_features: int, levels: range) -> None:
    inputs = list(block.message.input)
    for index in inputs:
        if not 0 <= index < num_features:
            block.report("input", f"is {index}; 0 to {num_features - 1} is allowed, made before it")
    if len(set(inputs)) < len(inputs):
        block.report("input", f"is {inputs}; each feature at most once")
    gated = block.message.merge == architecture_pb2.MnasFpn.SQUEEZE_EXCITE
    if gated and len(inputs) != 2:
        block.report("input", f"is {inputs}; SQUEEZE_EXCITE merges exactly 2")
    elif len(inputs) < 2:
        block.report("input", f"is {inputs}; at least 2 features are merged")
    if block.message.level not in levels:
        block.report("level", f"is {block.message.level}; one of {list(levels)} is allowed")
    block.at_least("expanded_channels", 1)
    _check_kernel_size(block)


def check_hyperparams(hyperparams: Section) -> None:
    message = hyperparams.message
    hyperparams.require(message.op == type(message).CONV, "op", "only CONV is supported")
    if message.HasField("regularizer") and (
        l2 := hyperparams.selected("regularizer", "regularizer_oneof")
    ):
        l2.at_least("weight", 0)
    if message.HasField("initializer") and (
        initializer := hyperparams.selected("initializer", "initializer_oneof")
    ):
        if "mean" in initializer.message.DESCRIPTOR.fields_by_name:
            initializer.within("mean", 0, 0)
            initializer.positive("stddev")
        else:
            initializer.positive("factor")
    if batch_norm := hyperparams.needed("batch_norm"):
        batch_norm.within("decay", 0, 1)
        batch_norm.positive("epsilon")
        for name in ("center", "scale"):
            batch_norm.require(getattr(batch_norm.message, name), name, "only true is supported")

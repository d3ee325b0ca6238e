"""The rules that a feature pyramid has to fulfil."""

from __future__ import annotations

from mnasdet.architectures import COARSEST, MAX_LEVEL, MAX_SSD_LAYERS, levels_of
from mnasdet.config_checks.layers import (
    MAX_CHANNELS,
    MAX_EXPANSION,
    MAX_IMAGE_SIZE,
    MAX_REPEATS,
    check_kernel_size,
    check_operations,
    parts_of,
)
from mnasdet.config_checks.section import Section
from mnasdet.protos import architecture_pb2

# The finest level that a pyramid may start from: all backbones here give levels 2 to 5.
_FINEST = 2

# Upper bounds, several times what any published network has. NAS-FPN merges 98 features in all
# repeats and MnasFPN 84.
_MAX_MERGED = 4096

# Values of a list that a message shows.
_SHOWN = 12


def check_pyramid(pyramid: Section) -> None:
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
    merges = parts_of(pyramid, name)
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
        layers = parts_of(pyramid, name)
        if len(layers) != needed:
            pyramid.report(
                name,
                f"is there {len(layers)} times; {needed} are needed, one a level of the backbone",
            )
        for layer in layers:
            check_operations(layer)
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
    block.counts(MAX_EXPANSION * MAX_CHANNELS, "expanded_channels")
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

"""SM-NAS's first search space: which modules a detector is made of (Yao et al., 2020, section
3.2.1)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import text_format

from mnasdet import base_codes
from mnasdet.architectures import COARSEST
from mnasdet.errors import ConfigError, UserError, nearest
from mnasdet.protos import (
    anchor_generator_pb2,
    architecture_pb2,
    box_predictor_pb2,
    search_pb2,
)
from mnasdet.search_spaces.base_code import no_larger
from mnasdet.search_spaces.choices import check, check_at_least
from mnasdet.search_spaces.composed import Part, difference
from mnasdet.search_spaces.space import Choice, Decision, Table

# Section 3.2.1. ResNeXt is Xie et al.'s 32x4d.
BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnext50",
    "resnext101",
    "mobilenet_v2",
)
REGION_PROPOSALS = ("none", "rpn", "ga_rpn")
HEADS = ("retinanet", "2fc", "cascade_2", "cascade_3", "cascade_4")

# (height, width) in pixels of the paper's 512x512, 800x600, 1080x720 and 1333x800 images, which are
# padded to multiples of 32.
INPUTS = ((512, 512), (608, 800), (736, 1088), (800, 1344))

NONE = "none"
_RETINANET = "retinanet"

# All backbones that have a name here.
_NAMED_BACKBONES = {
    **{f"resnet{depth}": f"resnet {{ depth: {depth} }}" for depth in (10, 18, 34, 50, 101, 152)},
    **{
        f"resnext{depth}": f"resnet {{ depth: {depth} groups: 32 width_per_group: 4 }}"
        for depth in (50, 101, 152)
    },
    "mobilenet_v2": "mobilenet_v2 {}",
    "mobilenet_v3_large": "mobilenet_v3 { size: LARGE }",
    "mobilenet_v3_small": "mobilenet_v3 { size: SMALL }",
}

# ResNets of one kind of block, which differ in depth alone.
_FAMILIES = (
    ("resnet10", "resnet18", "resnet34"),
    ("resnet50", "resnet101", "resnet152"),
    ("resnext50", "resnext101", "resnext152"),
)

# P1 is the level of stride 4, and P4 the backbone's last. P5 and P6 are made of it by strided
# convolutions, "following RetinaNet".
_P = {f"P{number}": number + 1 for number in range(1, 7)}

# Fewer levels are no pyramid: the paper's examples are FPN1,2,3,4 and FPN2,4,5 (figure 2). It does
# not say which lists there were. With all of three or more, and none, the space is as large as it
# says.
_MIN_LEVELS = 3

# The stages of Cascade R-CNN (Cai and Vasconcelos, 2018): overlap, factors of the box coder and
# weight. Their detector has three; the fourth goes on from there.
_STAGES = (
    (0.5, (10.0, 10.0, 5.0, 5.0), 1.0),
    (0.6, (20.0, 20.0, 10.0, 10.0), 0.5),
    (0.7, (30.0, 30.0, 15.0, 15.0), 0.25),
    (0.75, (40.0, 40.0, 20.0, 20.0), 0.125),
)

# Guided anchors overlap with objects more than others do, so that a single stage after them asks
# for more overlap (Wang et al., 2019, section 3.5; the numbers are mmdetection's).
_GUIDED_STAGE = (0.6, (20.0, 20.0, 10.0, 10.0), 1.0)

# Width over height, of all anchors.
_ASPECT_RATIOS = (0.5, 1.0, 2.0)

# Without a pyramid one level has objects of all sizes. The OD API's four, over the sides of the
# anchors that the level would have in a pyramid, 256 pixels.
_SINGLE_LEVEL_SCALES = (0.25, 0.5, 1.0, 2.0)

# One anchor size a level (Lin et al., "Feature Pyramid Networks", 2017, section 4.1).
_REGION_ANCHORS = """
  multiscale_anchor_generator {
    anchor_scale: 8
    aspect_ratios: [0.5, 1.0, 2.0]
    scales_per_octave: 1
  }
"""

# RetinaNet (Lin et al., "Focal Loss for Dense Object Detection", 2017, section 4): three sizes a
# level, the smallest half as large as a region's; two towers of four layers without normalisation.
_RETINANET_SCALES = 3
_RETINANET_SMALLER = 0.5
_RETINANET_PREDICTOR = """
  weight_shared_convolutional_box_predictor {
    num_layers_before_predictor: 4
    class_prediction_bias_init: -4.595
    conv_hyperparams {
      activation: RELU
      regularizer { l2_regularizer { weight: 1e-4 } }
      initializer { random_normal_initializer { stddev: 0.01 } }
    }
  }
"""

_PARTS = (
    "backbone",
    "feature_pyramid",
    "region_proposal",
    "region_head",
    "box_predictor",
    "anchor_generator",
)


class StructurePart(Part):
    """Backbone, neck, region proposals and head.

    Without region proposals the head is RetinaNet's, which detects in one stage; with them it is
    one of the others. The paper's lists have 9 such pairs.

    The neck "none" is the backbone's last level, P4. A pyramid takes those of its levels that the
    backbone has, and P4 besides where there are coarser ones.

    With the paper's lists and its four inputs the cardinality is 4 * 7 * 43 * 9 = 10,836. The paper
    has 1.1e4, and leaves open which necks they were.
    """

    fields = _PARTS

    def __init__(
        self,
        base: architecture_pb2.Architecture,
        *,
        backbones: Sequence[str] = BACKBONES,
        necks: Sequence[str] = (),
        region_proposals: Sequence[str] = (),
        heads: Sequence[str] = (),
        pyramid_channels: int = 256,
        box_predictor: box_predictor_pb2.BoxPredictor | None = None,
        space: str = "structure",
    ) -> None:
        """Args:
          base: gives hyper-parameters, the widths of heads, anchors and the number of proposals,
            where it states them.
          backbones: names, or base codes.
          necks: "none", "P2-P5", "P2,P4,P5"; none and every list of three or more if left out.
          region_proposals: of "none", "rpn" and "ga_rpn"; if left out all that go with a head.
          heads: of "retinanet", "2fc" and "cascade_2" to "cascade_4"; if left out all that go with
            one of the region proposals.
          pyramid_channels: width of pyramids.
          box_predictor: of detectors of one stage, in place of the base's; RetinaNet's if there is
            none.
          space: whose choices these are, for errors.

        Raises ConfigError for a value that no network can have.
        """
        check_at_least(space, "pyramid_channels", pyramid_channels, 1)
        check(space, "backbones", backbones, lambda name: True, "names")
        self._region_proposals, self._heads = _matching(space, region_proposals, heads)
        self._backbones = {name: _backbone(space, name, base) for name in backbones}
        self._levels = {name: _levels_of(space, name) for name in necks or default_necks()}
        check(space, "necks", tuple(self._levels.values()), lambda neck: True, "necks")
        self._base = base
        self._channels = pyramid_channels
        self._box_predictor = box_predictor

    def decisions(self, first: int) -> list[Decision]:
        fits: Table = tuple(
            tuple(_fit(proposal, head) for head in self._heads)
            for proposal in self._region_proposals
        )
        return [
            Decision("backbone", tuple(self._backbones), order=_no_deeper),
            Decision("neck", tuple(self._levels)),
            Decision("region_proposal", self._region_proposals),
            Decision("head", self._heads, ((first + 2, fits),), order=_no_more_stages),
        ]

    def write(self, values: Mapping[str, Any], architecture: architecture_pb2.Architecture) -> None:
        for field in _PARTS:
            architecture.ClearField(field)
        architecture.backbone.CopyFrom(self._backbones[values["backbone"]])
        levels = self._levels[values["neck"]]
        if levels:
            self._write_pyramid(levels, architecture.feature_pyramid)
        proposal, head = values["region_proposal"], values["head"]
        # Guided anchoring predicts the shapes of its anchors.
        if proposal != "ga_rpn":
            architecture.anchor_generator.CopyFrom(self._anchors(levels, head))
        if head == _RETINANET:
            architecture.box_predictor.CopyFrom(self._predictor())
            return
        self._write_region_proposal(proposal, architecture.region_proposal)
        self._write_region_head(proposal, head, architecture.region_head)

    def read(self, architecture: architecture_pb2.Architecture) -> Mapping[str, Choice]:
        where = f"architecture {architecture.name!r}"
        values: dict[str, Choice] = {
            "region_proposal": _region_proposal_of(architecture),
            "head": _head_of(architecture),
        }
        known = [n for n, b in self._backbones.items() if b == architecture.backbone]
        necks = [n for n, levels in self._levels.items() if levels == _neck_of(architecture)]
        for field, names in (("backbone", known), ("neck", necks)):
            if not names:
                raise UserError(f"{where}: its {field} is none of the search space's")
            values[field] = names[0]
        if (
            values["region_proposal"] not in self._region_proposals
            or values["head"] not in self._heads
        ):
            return values  # `encode` says what the space has.
        written = architecture_pb2.Architecture()
        written.CopyFrom(architecture)
        self.write(values, written)
        if different := difference(written, architecture):
            raise UserError(f"{where}: {different} in the search space")
        return values

    def _write_pyramid(
        self, levels: Sequence[int], pyramid: architecture_pb2.FeaturePyramid
    ) -> None:
        entering = {min(level, COARSEST) for level in levels}
        pyramid.fpn.variant = architecture_pb2.Fpn.TWO_STAGE
        pyramid.fpn.channels = self._channels
        pyramid.fpn.input_level[:] = sorted(entering)
        pyramid.fpn.output_level[:] = levels
        pyramid.fpn.strided_levels = True
        own = self._base.feature_pyramid
        if own.HasField("conv_hyperparams"):
            pyramid.conv_hyperparams.CopyFrom(own.conv_hyperparams)

    def _write_region_proposal(self, name: str, proposal: architecture_pb2.RegionProposal) -> None:
        proposal.CopyFrom(self._base.region_proposal)
        if not proposal.HasField("channels"):
            proposal.channels = self._channels
        if name == "rpn":
            proposal.ClearField("guided_anchoring")
        elif not proposal.HasField("guided_anchoring"):
            proposal.guided_anchoring.anchor_scale = self._region_anchors().anchor_scale

    def _write_region_head(
        self, proposal: str, name: str, head: architecture_pb2.RegionHead
    ) -> None:
        head.CopyFrom(self._base.region_head)
        if head.WhichOneof("layers_oneof") != "fully_connected":
            head.fully_connected.SetInParent()
        one_stage = _GUIDED_STAGE if proposal == "ga_rpn" else _STAGES[0]
        stages = (one_stage,) if name == "2fc" else _STAGES[: _num_stages(name)]
        # Cai and Vasconcelos refine one box for all classes; with one stage each class has its own.
        head.class_agnostic_boxes = len(stages) > 1
        del head.stage[:]
        for overlap, scales, weight in stages:
            head.stage.add(iou_threshold=overlap, box_scales=scales, loss_weight=weight)

    def _predictor(self) -> box_predictor_pb2.BoxPredictor:
        if self._box_predictor is not None:
            return self._box_predictor
        if self._base.HasField("box_predictor"):
            return self._base.box_predictor
        predictor = text_format.Parse(_RETINANET_PREDICTOR, box_predictor_pb2.BoxPredictor())
        predictor.weight_shared_convolutional_box_predictor.depth = self._channels
        return predictor

    def _region_anchors(self) -> anchor_generator_pb2.MultiscaleAnchorGenerator:
        own = self._base.anchor_generator
        if self._base.HasField("region_head") and own.HasField("multiscale_anchor_generator"):
            return own.multiscale_anchor_generator
        default = text_format.Parse(_REGION_ANCHORS, anchor_generator_pb2.AnchorGenerator())
        return default.multiscale_anchor_generator

    def _anchors(self, levels: Sequence[int], head: str) -> anchor_generator_pb2.AnchorGenerator:
        own = self._region_anchors()
        generator = anchor_generator_pb2.AnchorGenerator()
        if not levels:
            stride = 2**COARSEST
            side = round(own.anchor_scale * stride)
            grid = generator.grid_anchor_generator
            grid.height = grid.width = side
            grid.height_stride = grid.width_stride = stride
            grid.height_offset = grid.width_offset = stride // 2
            grid.scales[:] = _SINGLE_LEVEL_SCALES
            grid.aspect_ratios[:] = own.aspect_ratios or _ASPECT_RATIOS
            return generator
        anchors = generator.multiscale_anchor_generator
        anchors.CopyFrom(own)
        anchors.min_level, anchors.max_level = levels[0], levels[-1]
        if head == _RETINANET:
            anchors.anchor_scale *= _RETINANET_SMALLER
            anchors.scales_per_octave = _RETINANET_SCALES
        return generator


def default_necks() -> list[str]:
    """Returns "none" and every list of three or more of P1 to P6, shorter ones first."""
    lists = (
        levels
        for count in range(_MIN_LEVELS, len(_P) + 1)
        for levels in itertools.combinations(_P, count)
    )
    return [NONE, *(",".join(levels) for levels in lists)]


def from_config(
    config: search_pb2.StructureSpaceConfig,
    base: architecture_pb2.Architecture,
    space: str = "structure",
) -> list[Part]:
    """Returns the part of the space "structure" without its inputs.

    Lists that the config leaves empty are the paper's.
    """
    part = StructurePart(
        base,
        backbones=config.backbones or BACKBONES,
        necks=config.necks,
        region_proposals=config.region_proposals,
        heads=config.heads,
        pyramid_channels=config.pyramid_channels,
        box_predictor=config.box_predictor if config.HasField("box_predictor") else None,
        space=space,
    )
    return [part]


def _fit(proposal: str, head: str) -> bool:
    """Returns whether a head judges what there is: regions, or without them anchors."""
    return (proposal == NONE) == (head == _RETINANET)


def _matching(
    space: str, proposals: Sequence[str], heads: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns region proposals and heads, those that are left out filled in with all that fit.

    Raises ConfigError for an unknown one, and for one that fits none of the others.
    """
    all_proposals, all_heads = proposals or REGION_PROPOSALS, heads or HEADS
    proposals = proposals or [p for p in all_proposals if any(_fit(p, h) for h in all_heads)]
    heads = heads or [h for h in all_heads if any(_fit(p, h) for p in proposals)]
    for field, names, known in (
        ("region_proposals", proposals, REGION_PROPOSALS),
        ("heads", heads, HEADS),
    ):
        check(space, field, names, known.__contains__, f"ones of {', '.join(known)}")
    alone = [p for p in proposals if not any(_fit(p, h) for h in heads)]
    alone += [h for h in heads if not any(_fit(p, h) for p in proposals)]
    if alone:
        raise ConfigError(
            f"{space} search space: region_proposals is {list(proposals)}, heads {list(heads)}: "
            f"{alone[0]} is without a partner; retinanet goes with none, and all other heads with "
            "rpn or ga_rpn"
        )
    return tuple(proposals), tuple(heads)


def _backbone(
    space: str, name: str, base: architecture_pb2.Architecture
) -> architecture_pb2.Backbone:
    backbone = architecture_pb2.Backbone()
    if name in _NAMED_BACKBONES:
        text_format.Parse(_NAMED_BACKBONES[name], backbone)
    elif "_" in name and name.partition("_")[0] in base_codes.EXPANSIONS:
        try:
            base_codes.parse(name)
        except ConfigError as error:
            raise ConfigError(f"{space} search space: backbones: {error}") from None
        backbone.base_code.code = name
    else:
        raise ConfigError(
            f"{space} search space: backbones has {name!r}; use {nearest(name, _NAMED_BACKBONES)}, "
            "or a base code such as basicblock_64_1-21-21-12"
        )
    if base.backbone.HasField("conv_hyperparams"):
        backbone.conv_hyperparams.CopyFrom(base.backbone.conv_hyperparams)
    return backbone


def _levels_of(space: str, neck: str) -> tuple[int, ...]:
    """Returns the levels that a neck gives out; none for "none"."""
    if neck == NONE:
        return ()
    levels: tuple[int, ...] = ()
    if found := re.fullmatch(r"(P[1-6])-(P[1-6])", neck):
        levels = tuple(range(_P[found[1]], _P[found[2]] + 1))
    elif all(name in _P for name in neck.split(",")):
        levels = tuple(_P[name] for name in neck.split(","))
    if len(levels) < _MIN_LEVELS or list(levels) != sorted(set(levels)):
        raise ConfigError(
            f"{space} search space: necks has {neck!r}; use none, or {_MIN_LEVELS} or more of P1 "
            "to P6 in this order, as in P2-P5 or P2,P4,P5"
        )
    return levels


def _neck_of(architecture: architecture_pb2.Architecture) -> tuple[int, ...]:
    """Returns the levels that the pyramid lists; none where there is no pyramid."""
    return tuple(architecture.feature_pyramid.fpn.output_level)


def _region_proposal_of(architecture: architecture_pb2.Architecture) -> str:
    if not architecture.HasField("region_proposal"):
        return NONE
    return "ga_rpn" if architecture.region_proposal.HasField("guided_anchoring") else "rpn"


def _head_of(architecture: architecture_pb2.Architecture) -> str:
    if not architecture.HasField("region_head"):
        return _RETINANET
    count = len(architecture.region_head.stage)
    return f"cascade_{count}" if count > 1 else "2fc"


def _num_stages(head: str) -> int:
    """Returns the stages of a cascade; 0 for another head."""
    return int(head.removeprefix("cascade_")) if head.startswith("cascade_") else 0


def _no_more_stages(head: str, other: str) -> bool:
    """Returns whether a head is the other with some of its stages left out.

    Each stage of a cascade goes on from the boxes of the one before. 2fc is no cascade of one: it
    has a box for every class.
    """
    return head == other or 0 < _num_stages(head) <= _num_stages(other)


def _no_deeper(backbone: str, other: str) -> bool:
    """Returns whether a backbone is no deeper and no wider than another of the same kind.

    ResNets of another kind of block differ in more than depth.
    """
    if backbone == other:
        return True
    for family in _FAMILIES:
        if backbone in family and other in family:
            return family.index(backbone) < family.index(other)
    if backbone in _NAMED_BACKBONES or other in _NAMED_BACKBONES:
        return False
    return no_larger(base_codes.parse(backbone), base_codes.parse(other))

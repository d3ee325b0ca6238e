"""The graphs of a two-stage detector, from one Architecture.

One graph is for the image, and one for a region in each stage of the second. What lies between them
depends on the predictions and is no graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mnasdet.architectures import (
    COARSEST,
    anchors_per_location,
    levels,
    region_side,
    region_stages,
)
from mnasdet.backbones.factory import backbone_features
from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS
from mnasdet.feature_pyramids.factory import pyramid_features
from mnasdet.heads import guided_anchoring, region, region_proposal
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.graph import Graph, Network
from mnasdet.protos import architecture_pb2


def region_features_name(level: int) -> str:
    """Returns the name of the output that regions are cropped from at a level."""
    return f"region_features/level_{level}"


def head_input_name(stage: int) -> str:
    """Returns the name of the features of a region that a stage, from 1, takes."""
    return f"region_features_{stage}"


@dataclass(frozen=True)
class TwoStageNetwork:
    """The graphs of a detector.

    Attributes:
      features: of the image: the features that regions are cropped from,
        "region_features/level_<l>" (height, width, channels), and what the first stage predicts,
        "rpn/box_encodings" (anchors, 4) and "rpn/objectness" (anchors, 1 or 2); with guided
        anchoring also "rpn/anchor_shapes" (anchors, 2) and "rpn/locations" (anchors, 1).
      heads: of a region, one a stage: "box_encodings" (num_classes or 1, 4) and
        "class_predictions_with_background" (num_classes + 1,), slot 0 for the background.
      levels: those that propose regions, finest first; level l has stride 2^l.
      feature_sizes: (height, width) of each of them.
      region_levels: those that regions are cropped from, finest first.
      max_proposals: the regions of an image.
    """

    features: Mapping[str, Node]
    heads: Sequence[Mapping[str, Node]]
    levels: Sequence[int]
    feature_sizes: Sequence[tuple[int, int]]
    region_levels: Sequence[int]
    max_proposals: int

    @property
    def deployed(self) -> Network:
        """Returns the graphs; those of the second stage run once for every region."""
        heads = {
            f"region_head_{stage}": Graph(head, self.max_proposals)
            for stage, head in enumerate(self.heads, start=1)
        }
        return Network({"features": Graph(self.features), **heads})


def two_stage_network(
    architecture: architecture_pb2.Architecture, image_size: Sequence[int], num_classes: int
) -> TwoStageNetwork:
    """Returns the graphs of a detector.

    Args:
      image_size: (height, width) in pixels.
      num_classes: without the background.
    """
    b = Builder()
    by_level = _features(b, b.input((*image_size, 3)), architecture)
    features = list(by_level.values())
    # Coarser levels only propose: a region of their scale has enough pixels at stride 32.
    region_levels = [level for level in by_level if level <= COARSEST] or [min(by_level)]
    outputs = {region_features_name(level): by_level[level] for level in region_levels}
    outputs |= _first_stage(b, features, architecture)
    side = region_side(architecture.region_head.region_align)
    heads = []
    for stage in range(1, len(region_stages(architecture)) + 1):
        # Features of all levels have the same width, so a region of any level fits one input.
        x = b.input((side, side, features[0].channels), head_input_name(stage))
        # Stages share no weights: each learns from the overlaps that the one before reaches (Cai
        # and Vasconcelos, 2018).
        with b.scope(f"region_head/stage_{stage}"):
            boxes, logits = region.from_proto(b, x, architecture, num_classes=num_classes)
        heads.append({BOX_ENCODINGS: boxes, CLASS_LOGITS: logits})
    return TwoStageNetwork(
        features=outputs,
        heads=heads,
        levels=list(by_level),
        feature_sizes=[node.size for node in features],
        region_levels=region_levels,
        max_proposals=architecture.region_proposal.max_proposals,
    )


def _features(
    b: Builder, image: Node, architecture: architecture_pb2.Architecture
) -> dict[int, Node]:
    """Returns the features that propose regions, by level: the pyramid's or one of the backbone."""
    multiplier, least = architecture.depth_multiplier, architecture.min_depth
    backbone = backbone_features(
        b, image, architecture.backbone, depth_multiplier=multiplier, min_depth=least
    )
    if not architecture.HasField("feature_pyramid"):
        return {level: backbone.levels[level] for level in levels(architecture)}
    pyramid = pyramid_features(
        b, backbone, architecture.feature_pyramid, depth_multiplier=multiplier, min_depth=least
    )
    return dict(zip(levels(architecture), pyramid[-1], strict=True))


def _first_stage(
    b: Builder, features: Sequence[Node], architecture: architecture_pb2.Architecture
) -> dict[str, Node]:
    """Returns the predictions of the first stage, by name."""
    proto = architecture.region_proposal
    # One scope for both kinds: their convolution before the predictions is the same layer.
    with b.scope("region_proposal"):
        if proto.HasField("guided_anchoring"):
            return guided_anchoring.from_proto(b, features, proto)
        return region_proposal.from_proto(
            b,
            features,
            proto,
            anchors_per_location=anchors_per_location(architecture.anchor_generator, len(features)),
        )

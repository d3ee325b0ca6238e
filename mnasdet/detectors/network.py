"""The graph of a one-stage detector, from one Architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnasdet.architectures import anchors_per_location
from mnasdet.backbones.factory import backbone_features
from mnasdet.feature_pyramids.factory import pyramid_features
from mnasdet.heads.factory import box_predictions
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.graph import Graph, Network
from mnasdet.protos import architecture_pb2

# The names of the OD API's raw predictions.
BOX_ENCODINGS = "box_encodings"
CLASS_LOGITS = "class_predictions_with_background"

# Raw predictions of one predictor, by name: box encodings (anchors, 4) and class logits (anchors,
# num_classes + 1), slot 0 for the background.
RawPredictions = Mapping[str, Node]


@dataclass(frozen=True)
class DetectionNetwork:
    """The predictions of a detector for an image.

    Attributes:
      predictions: what detects.
      earlier: with deep supervision, the predictions after every earlier repeat.
      feature_sizes: (height, width) of every level that predicts, finest first.
    """

    predictions: RawPredictions
    earlier: list[RawPredictions]
    feature_sizes: list[tuple[int, int]]

    @property
    def deployed(self) -> Network:
        """Returns the graph without the parts that only training needs."""
        return Network({"detector": Graph(self.predictions)})


def detection_network(
    architecture: architecture_pb2.Architecture, image_size: Sequence[int], num_classes: int
) -> DetectionNetwork:
    """Returns the raw predictions of an image.

    Args:
      image_size: (height, width) in pixels.
      num_classes: without the background.
    """
    b = Builder()
    scale: dict[str, Any] = {
        "depth_multiplier": architecture.depth_multiplier,
        "min_depth": architecture.min_depth,
    }
    backbone = backbone_features(b, b.input((*image_size, 3)), architecture.backbone, **scale)
    repeats = pyramid_features(b, backbone, architecture.feature_pyramid, **scale)
    # Exits cost a predictor each, so only those that learn or detect are built.
    exits = list(range(1, len(repeats) + 1))
    if architecture.exit or not architecture.deep_supervision:
        exits = [architecture.exit or exits[-1]]
    predictions = []
    for number in exits:
        deep = architecture.deep_supervision
        with b.scope(f"box_predictor/exit_{number}" if deep else "box_predictor"):
            predictions.append(raw_predictions(b, repeats[number - 1], architecture, num_classes))
    *earlier, last = predictions
    return DetectionNetwork(last, earlier, [node.size for node in repeats[-1]])


def raw_predictions(
    b: Builder,
    features: Sequence[Node],
    architecture: architecture_pb2.Architecture,
    num_classes: int,
) -> RawPredictions:
    """Builds the box predictor over features, one a level, in the caller's scope."""
    boxes, classes = box_predictions(
        b,
        features,
        architecture.box_predictor,
        num_classes=num_classes,
        anchors_per_location=anchors_per_location(architecture.anchor_generator, len(features)),
    )
    return {BOX_ENCODINGS: boxes, CLASS_LOGITS: classes}

"""The layers of a whole detector or classifier, from one Architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnasdet.backbones.factory import backbone_features
from mnasdet.detectors import anchors
from mnasdet.feature_pyramids.factory import pyramid_features
from mnasdet.heads import classifier
from mnasdet.heads.factory import box_predictions
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import BackboneFeatures
from mnasdet.protos import architecture_pb2

# The names of the OD API's raw predictions.
BOX_ENCODINGS = "box_encodings"
CLASS_LOGITS = "class_predictions_with_background"
CLASSIFICATION_LOGITS = "logits"


@dataclass(frozen=True)
class RawPredictions:
    """What one predictor says of all anchors.

    Attributes:
      box_encodings: (anchors, 4).
      class_logits: (anchors, num_classes + 1), slot 0 for the background.
    """

    box_encodings: Node
    class_logits: Node


@dataclass(frozen=True)
class DetectionNetwork:
    """The graph of a detector.

    Attributes:
      predictions: what detects.
      earlier: with deep supervision, the predictions after every earlier repeat.
      feature_sizes: (height, width) of every level that predicts, finest first.
    """

    predictions: RawPredictions
    earlier: list[RawPredictions]
    feature_sizes: list[tuple[int, int]]

    @property
    def outputs(self) -> list[Node]:
        """What is deployed."""
        return [self.predictions.box_encodings, self.predictions.class_logits]


def num_exits(architecture: architecture_pb2.Architecture) -> int:
    """The repeats of the feature pyramid, after each of which a predictor may stand."""
    pyramid = architecture.feature_pyramid
    return getattr(getattr(pyramid, pyramid.WhichOneof("feature_pyramid_oneof")), "repeats", 1)


def network_outputs(
    architecture: architecture_pb2.Architecture, image_size: Sequence[int], num_classes: int
) -> list[Node]:
    """What an architecture computes of an image, (height, width): of a detector the raw
    predictions, of a classifier the logits (num_classes,)."""
    if architecture.HasField("classifier"):
        return [classification_network(architecture, image_size, num_classes)]
    return detection_network(architecture, image_size, num_classes).outputs


def classification_network(
    architecture: architecture_pb2.Architecture, image_size: Sequence[int], num_classes: int
) -> Node:
    """The logits (num_classes,) of an image, (height, width)."""
    b = Builder()
    image = b.input((*image_size, 3))
    features = _backbone(b, image, architecture)
    with b.scope("classifier"):
        return classifier.from_proto(
            b, features.last, architecture.classifier, num_classes=num_classes
        )


def detection_network(
    architecture: architecture_pb2.Architecture, image_size: Sequence[int], num_classes: int
) -> DetectionNetwork:
    """The raw predictions of an image.

    Args:
      image_size: (height, width) in pixels.
      num_classes: without the background.
    """
    b = Builder()
    image = b.input((*image_size, 3))
    repeats = pyramid_features(
        b,
        _backbone(b, image, architecture),
        architecture.feature_pyramid,
        depth_multiplier=architecture.depth_multiplier,
        min_depth=architecture.min_depth,
    )
    exits = list(range(1, len(repeats) + 1))
    if architecture.exit or not architecture.deep_supervision:
        exits = [architecture.exit or exits[-1]]
    predictions = []
    for number in exits:
        deep = architecture.deep_supervision
        with b.scope(f"box_predictor/exit_{number}" if deep else "box_predictor"):
            features = repeats[number - 1]
            boxes, classes = box_predictions(
                b,
                features,
                architecture.box_predictor,
                num_classes=num_classes,
                anchors_per_location=anchors.per_location(
                    architecture.anchor_generator, len(features)
                ),
            )
            predictions.append(RawPredictions(boxes, classes))
    *earlier, last = predictions
    return DetectionNetwork(last, earlier, [node.size for node in repeats[-1]])


def _backbone(
    b: Builder, image: Node, architecture: architecture_pb2.Architecture
) -> BackboneFeatures:
    """Builds an architecture's backbone."""
    return backbone_features(
        b,
        image,
        architecture.backbone,
        depth_multiplier=architecture.depth_multiplier,
        min_depth=architecture.min_depth,
        classifies=architecture.HasField("classifier"),
    )

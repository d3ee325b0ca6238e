"""The layers of a whole detector, from one Architecture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnasdet.backbones import mobilenet_v2
from mnasdet.detectors import anchors
from mnasdet.feature_pyramids import mnasfpn
from mnasdet.heads import weight_shared
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.hyperparams import Hyperparams
from mnasdet.protos import architecture_pb2

# The names of the OD API's raw predictions.
BOX_ENCODINGS = "box_encodings"
CLASS_LOGITS = "class_predictions_with_background"


@dataclass(frozen=True)
class DetectionNetwork:
    """The graph of a detector.

    Attributes:
      box_encodings: (anchors, 4).
      class_logits: (anchors, num_classes + 1), slot 0 for the background.
      feature_sizes: (height, width) of every level that predicts, finest first.
    """

    box_encodings: Node
    class_logits: Node
    feature_sizes: list[tuple[int, int]]

    @property
    def outputs(self) -> list[Node]:
        return [self.box_encodings, self.class_logits]


def detection_network(
    architecture: architecture_pb2.Architecture,
    image_size: Sequence[int],
    num_classes: int,
    hyperparams: Hyperparams | None = None,
) -> DetectionNetwork:
    """Builds the graph.

    Args:
      image_size: (height, width) in pixels.
      num_classes: without the background.
      hyperparams: of backbone and feature pyramid, in place of what their publications use.
    """
    b = Builder()
    image = b.input((*image_size, 3))
    with b.scope("backbone"):
        features = mobilenet_v2.mobilenet_v2(
            b,
            image,
            depth_multiplier=architecture.depth_multiplier
            * architecture.backbone.mobilenet_v2.depth_multiplier,
            min_depth=architecture.min_depth,
            hyperparams=hyperparams or mobilenet_v2.MNASFPN_EXTRACTOR,
        )
    pyramid = architecture.feature_pyramid.mnasfpn
    with b.scope("feature_pyramid"):
        pyramid_features = mnasfpn.from_proto(
            b,
            [features[level] for level in range(pyramid.min_level, 6)],
            pyramid,
            depth_multiplier=architecture.depth_multiplier,
            min_depth=architecture.min_depth,
            hyperparams=hyperparams or mnasfpn.EXTRACTOR,
        )
    with b.scope("box_predictor"):
        boxes, classes = weight_shared.from_proto(
            b,
            pyramid_features,
            architecture.box_predictor.weight_shared_convolutional_box_predictor,
            num_classes=num_classes,
            anchors_per_location=anchors.per_location(architecture.anchor_generator),
        )
    return DetectionNetwork(boxes, classes, [node.size for node in pyramid_features])

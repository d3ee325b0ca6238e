"""The graph of a classifier, from one Architecture."""

from __future__ import annotations

from collections.abc import Sequence

from mnasdet.backbones.factory import backbone_features
from mnasdet.heads import classifier
from mnasdet.networks.builder import Builder
from mnasdet.networks.graph import Graph, Network
from mnasdet.protos import architecture_pb2

# The name of the raw predictions.
LOGITS = "logits"


def classification_network(
    architecture: architecture_pb2.Architecture, image_size: Sequence[int], num_classes: int
) -> Network:
    """Returns one graph, of the logits (num_classes,) of an image.

    Args:
      image_size: (height, width) in pixels.
    """
    b = Builder()
    features = backbone_features(
        b,
        b.input((*image_size, 3)),
        architecture.backbone,
        depth_multiplier=architecture.depth_multiplier,
        min_depth=architecture.min_depth,
        classifies=True,
    )
    with b.scope("classifier"):
        logits = classifier.from_proto(
            b, features.last, architecture.classifier, num_classes=num_classes
        )
    return Network({"classifier": Graph({LOGITS: logits})})

"""The box predictor that an Architecture names."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mnasdet.heads import convolutional, weight_shared
from mnasdet.networks.builder import Builder, Node
from mnasdet.protos import box_predictor_pb2

# The reader of each predictor's message, by its field in BoxPredictor.
_PREDICTORS: dict[str, Callable[..., tuple[Node, Node]]] = {
    "convolutional_box_predictor": convolutional.from_proto,
    "weight_shared_convolutional_box_predictor": weight_shared.from_proto,
}


def box_predictions(
    b: Builder,
    features: Sequence[Node],
    proto: box_predictor_pb2.BoxPredictor,
    *,
    num_classes: int,
    anchors_per_location: Sequence[int],
) -> tuple[Node, Node]:
    """Builds the predictor that a message describes, in the caller's scope.

    Args:
      features: one a level, finest first, (height, width, channels).
      num_classes: without the background.
      anchors_per_location: of each feature.

    Returns:
      Box encodings (anchors, 4) and class logits (anchors, num_classes + 1), slot 0 for the
      background: levels in order, within one row by row, within a location anchor by anchor.
    """
    name = proto.WhichOneof("box_predictor_oneof")
    return _PREDICTORS[name](
        b,
        features,
        getattr(proto, name),
        num_classes=num_classes,
        anchors_per_location=anchors_per_location,
    )

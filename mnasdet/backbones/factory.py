"""The backbone that an Architecture names."""

from __future__ import annotations

from collections.abc import Callable

from mnasdet.backbones import (
    amoebanet,
    base_code,
    mnasnet,
    mobilenet_v2,
    mobilenet_v3,
    operation_layers,
    resnet,
)
from mnasdet.networks import hyperparams
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import BackboneFeatures
from mnasdet.protos import architecture_pb2

# The reader of each backbone's message, by its field in Backbone.
_BACKBONES: dict[str, Callable[..., BackboneFeatures]] = {
    "mobilenet_v2": mobilenet_v2.from_proto,
    "mobilenet_v3": mobilenet_v3.from_proto,
    "mnasnet": mnasnet.from_proto,
    "resnet": resnet.from_proto,
    "amoebanet_d": amoebanet.from_proto,
    "operation_layers": operation_layers.from_proto,
    "base_code": base_code.from_proto,
}


def backbone_features(
    b: Builder,
    image: Node,
    proto: architecture_pb2.Backbone,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 8,
    classifies: bool = False,
) -> BackboneFeatures:
    """Builds the backbone that a message describes, its layers in the scope "backbone".

    Args:
      image: (height, width, 3).
      proto: one backbone, and the hyper-parameters in place of its publication's, if any.
      depth_multiplier: factor on the backbone's widths.
      min_depth: the least of the scaled widths.
      classifies: whether a classifier reads the last feature, and not a detector.
    """
    name = proto.WhichOneof("backbone_oneof")
    # No layer of the other backbones depends on it.
    arguments = {"classifies": classifies} if name == "mobilenet_v2" else {}
    with b.scope("backbone"):
        return _BACKBONES[name](
            b,
            image,
            getattr(proto, name),
            depth_multiplier=depth_multiplier,
            min_depth=min_depth,
            hyperparams=hyperparams.configured(proto),
            **arguments,
        )

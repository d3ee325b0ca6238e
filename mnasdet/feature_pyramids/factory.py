"""The feature pyramid that an Architecture names."""

from __future__ import annotations

from collections.abc import Callable

from mnasdet.feature_pyramids import fpn, hit, mnasfpn, nas_fpn, ssd_layers
from mnasdet.networks import hyperparams
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import MAX_LEVEL, BackboneFeatures
from mnasdet.protos import architecture_pb2

# The reader of each pyramid's message, by its field in FeaturePyramid.
_PYRAMIDS: dict[str, Callable[..., list[list[Node]]]] = {
    "mnasfpn": mnasfpn.from_proto,
    "fpn": fpn.from_proto,
    "nas_fpn": nas_fpn.from_proto,
    "ssd_layers": ssd_layers.from_proto,
    "hit": hit.from_proto,
}


def pyramid_features(
    b: Builder,
    features: BackboneFeatures,
    proto: architecture_pb2.FeaturePyramid,
    *,
    depth_multiplier: float = 1.0,
    min_depth: int = 16,
) -> list[list[Node]]:
    """Builds the pyramid that a message describes, its layers in the scope "feature_pyramid".

    Args:
      features: the backbone's.
      proto: one pyramid, and the hyper-parameters in place of its publication's, if any; or none.
      depth_multiplier: factor on the pyramid's widths.
      min_depth: the least of the scaled widths.

    Returns:
      The features after every repeat of the pyramid, each time one a level, finest first. Without a
      pyramid that is the backbone's last level, once.
    """
    name = proto.WhichOneof("feature_pyramid_oneof")
    if name is None:
        return [[features.levels[MAX_LEVEL]]]
    with b.scope("feature_pyramid"):
        return _PYRAMIDS[name](
            b,
            features,
            getattr(proto, name),
            depth_multiplier=depth_multiplier,
            min_depth=min_depth,
            hyperparams=hyperparams.configured(proto),
        )

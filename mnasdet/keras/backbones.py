"""Backbones as Keras layers: `c3, c4, c5 = MobileNetV2()(image)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import tf_keras

from mnasdet.architectures import levels
from mnasdet.backbones import (
    amoebanet,
    base_code,
    mnasnet,
    mobilenet_v2,
    mobilenet_v3,
    operation_layers,
    resnet,
)
from mnasdet.errors import LayerError, nearest
from mnasdet.keras import parts
from mnasdet.keras.graph_layer import GraphLayer
from mnasdet.networks import hyperparams
from mnasdet.networks.builder import Builder, Node
from mnasdet.networks.features import MAX_LEVEL, BackboneFeatures
from mnasdet.protos import architecture_pb2

_FINEST_LEVEL = 2

# All that a backbone gives, by name.
FEATURES = (*(f"c{level}" for level in range(_FINEST_LEVEL, MAX_LEVEL + 1)), "expansion", "last")

_MNASNET_A1 = "mnasnet_a1"
_HIT_DETECTOR = "hit_detector"


class Backbone(GraphLayer):
    """A backbone, from an image [batch, height, width, 3] in [-1, 1] to features.

    All backbones share these arguments:

    Args:
      outputs: which features the layer gives, as a list in this order; one name in place of a list
        gives one tensor, for `Sequential`. What none of them needs is never built.
        "c2" to "c5" are the last features of strides 4, 8, 16 and 32, finest first; with linear
        bottlenecks they are linear. "last" is what a classifier pools: after the last 1x1
        convolution where there is one. "expansion" is SSDLite's first feature, at stride 16, and
        "c4" where there is no such layer.
      depth_multiplier: factor on every width, rounded to multiples of 8 and never below 90 %.
      min_depth: the least of the scaled widths.
      conv_hyperparams: the fields of `Hyperparams` in protos/hyperparams.proto, in place of what
        the publication uses, as {"activation": "RELU_6", "batch_norm": {"decay": 0.99}}.
      **kwargs: name, trainable and dtype, as every Keras layer has them.
    """

    # The field of Backbone in protos/architecture.proto, and what reads it.
    kind: ClassVar[str]
    read: Callable[..., BackboneFeatures]

    def __init__(
        self,
        fields: dict[str, Any],
        *,
        outputs: str | Sequence[str] = ("c3", "c4", "c5"),
        depth_multiplier: float = 1.0,
        min_depth: int = 8,
        conv_hyperparams: dict[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        values = parts.scaled_values(
            "backbone", self.kind, fields, depth_multiplier, min_depth, conv_hyperparams
        )
        self._message = parts.checked(values, self._title()).backbone
        self.depth_multiplier = float(depth_multiplier)
        self.min_depth = int(min_depth)
        # A list would be wrapped by Keras.
        self._outputs = outputs if isinstance(outputs, str) else tuple(outputs)
        # An empty list is refused as the name "" is: a layer gives something.
        for name in [outputs] if isinstance(outputs, str) else outputs or [""]:
            if name not in FEATURES:
                raise LayerError(
                    f'{self._title()}: outputs has "{name}"; {nearest(name, FEATURES)} is allowed'
                )

    @classmethod
    def from_architecture(cls, architecture: parts.ArchitectureLike, **kwargs: Any) -> Backbone:
        """Makes the backbone of an architecture.

        Args:
          architecture: a published one's name, the path of a .textproto (a trial's too), an
            architecture string, or the message.
          **kwargs: in place of what the architecture says; `outputs` are by default what the rest
            of the architecture reads.
        """
        resolved = parts.resolved(architecture)
        arguments = parts.scaled_fields(resolved, "backbone", cls.kind, cls.__name__)
        # `kwargs` prevail over all that the architecture says.
        return cls(**(arguments | {"outputs": _read_features(resolved)} | kwargs))

    def network(self, b: Builder, inputs: list[Node]) -> Node | list[Node]:
        features = self.read(
            b,
            parts.only(inputs),
            getattr(self._message, self.kind),
            depth_multiplier=self.depth_multiplier,
            min_depth=self.min_depth,
            hyperparams=hyperparams.configured(self._message),
        )
        nodes = {f"c{level}": node for level, node in features.levels.items()}
        nodes["last"] = features.last
        # Only backbones with inverted bottlenecks have an expansion; SSDLite takes C4 of the
        # others.
        nodes["expansion"] = features.expansion or features.levels[4]
        if isinstance(self._outputs, str):
            return nodes[self._outputs]
        return [nodes[name] for name in self._outputs]

    def get_config(self) -> dict[str, Any]:
        own = parts.scaled_config(self._message, self.kind) | {
            "outputs": self._outputs if isinstance(self._outputs, str) else list(self._outputs),
            "depth_multiplier": self.depth_multiplier,
            "min_depth": self.min_depth,
        }
        return super().get_config() | own


@tf_keras.utils.register_keras_serializable("mnasdet")
class MobileNetV2(Backbone):
    """MobileNetV2 (Sandler et al., 2018). "c2" to "c5" have 24, 32, 96 and 320 channels.

    Args:
      last_channels: of the 1x1 convolution that gives "last".
      classifies: whether a classifier reads "last". A multiplier below 1 then leaves it as wide as
        it is (section 4); the OD API's detectors scale it with the rest.
      **kwargs: those of `Backbone`.
    """

    kind = "mobilenet_v2"

    def __init__(self, *, last_channels: int = 1280, classifies: bool = False, **kwargs: Any):
        super().__init__({"last_channels": last_channels}, **kwargs)
        self.classifies = classifies

    @classmethod
    def from_architecture(cls, architecture: parts.ArchitectureLike, **kwargs: Any) -> Backbone:
        resolved = parts.resolved(architecture)
        # A multiplier scales the last layer of a detector alone; see the class.
        arguments = {"classifies": resolved.HasField("classifier")}
        return super().from_architecture(resolved, **(arguments | kwargs))

    def read(self, *args: Any, **kwargs: Any) -> BackboneFeatures:
        return mobilenet_v2.from_proto(*args, classifies=self.classifies, **kwargs)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"classifies": self.classifies}


@tf_keras.utils.register_keras_serializable("mnasdet")
class MobileNetV3(Backbone):
    """MobileNetV3 (Howard et al., 2019). "c2" to "c5" have 24, 40, 112 and 160 channels, of the
    small one 16, 24, 48 and 96.

    Args:
      size: "LARGE" or "SMALL".
      halved: half the channels of all outputs at stride 32, as for detection (section 6.3).
      **kwargs: those of `Backbone`.
    """

    kind = "mobilenet_v3"
    read = staticmethod(mobilenet_v3.from_proto)

    def __init__(self, size: str = "LARGE", *, halved: bool = False, **kwargs: Any):
        super().__init__({"size": size.upper(), "halved": halved}, **kwargs)


@tf_keras.utils.register_keras_serializable("mnasdet")
class MnasNet(Backbone):
    """MnasNet (Tan et al., 2019). "c2" to "c5" of A1 have 24, 40, 112 and 320 channels.

    Args:
      block: equal layers in a row, each a dict of the fields of MnasNet.Block in
        protos/architecture.proto, four of them with stride 2; by default those of MnasNet-A1.
      stem_channels: of the first convolution.
      last_channels: of the 1x1 convolution that gives "last"; no multiplier scales it.
      **kwargs: those of `Backbone`.
    """

    kind = "mnasnet"
    read = staticmethod(mnasnet.from_proto)

    def __init__(
        self,
        block: Sequence[dict[str, Any]] | None = None,
        *,
        stem_channels: int = 32,
        last_channels: int = 1280,
        **kwargs: Any,
    ):
        if block is None:
            # Read, not repeated here: the published network stands in one place.
            block = parts.fields(parts.resolved(_MNASNET_A1).backbone.mnasnet)["block"]
        fields = {
            "block": list(block),
            "stem_channels": stem_channels,
            "last_channels": last_channels,
        }
        super().__init__(fields, **kwargs)


@tf_keras.utils.register_keras_serializable("mnasdet")
class ResNet(Backbone):
    """ResNet (He et al., 2016), or with more than one group ResNeXt (Xie et al., 2017). "c2" to
    "c5" have 256, 512, 1024 and 2048 channels, a quarter of it up to depth 34.

    Args:
      depth: 10, 18, 34, 50, 101 or 152.
      groups: of the 3x3 convolutions from depth 50 on.
      width_per_group: their channels a group at stride 4, doubled at every stride.
      strides_in_1x1: whether bottlenecks stride in their first 1x1 convolution.
      **kwargs: those of `Backbone`.
    """

    kind = "resnet"
    read = staticmethod(resnet.from_proto)

    def __init__(
        self,
        depth: int = 50,
        *,
        groups: int = 1,
        width_per_group: int = 64,
        strides_in_1x1: bool = False,
        **kwargs: Any,
    ):
        fields = {
            "depth": depth,
            "groups": groups,
            "width_per_group": width_per_group,
            "strides_in_1x1": strides_in_1x1,
        }
        super().__init__(fields, **kwargs)


@tf_keras.utils.register_keras_serializable("mnasdet")
class AmoebaNetD(Backbone):
    """AmoebaNet-D (Real et al., 2019). "c2" to "c5" have 3/4, 4, 8 and 16 times F channels.

    Args:
      num_cells: N, the normal cells.
      filters: F, of the first group.
      **kwargs: those of `Backbone`.
    """

    kind = "amoebanet_d"
    read = staticmethod(amoebanet.from_proto)

    def __init__(self, num_cells: int = 18, filters: int = 256, **kwargs: Any):
        super().__init__({"num_cells": num_cells, "filters": filters}, **kwargs)


@tf_keras.utils.register_keras_serializable("mnasdet")
class BaseCode(Backbone):
    """A residual network of SM-NAS (Yao et al., 2020). "c2" to "c5" of E0 have 64, 128, 256 and 512
    channels.

    Args:
      code: block, base width and stages, such as "basicblock_64_1-21-21-12"; see
        mnasdet/base_codes.py.
      **kwargs: those of `Backbone`.
    """

    kind = "base_code"
    read = staticmethod(base_code.from_proto)

    def __init__(self, code: str = "basicblock_64_1-21-21-12", **kwargs: Any):
        super().__init__({"code": code}, **kwargs)


@tf_keras.utils.register_keras_serializable("mnasdet")
class OperationLayers(Backbone):
    """Layers of one operation each, as Hit-Detector has them (Guo et al., 2020). "c2" to "c5" of
    the released network have 48, 96, 256 and 2048 channels.

    Args:
      layer: each a dict of the fields of ChosenLayer in protos/architecture.proto, with a single
        `op`, four of them with stride 2; by default those of Hit-Detector.
      stem_channels: of the first convolution.
      last_channels: of a 1x1 convolution behind the layers; 0: none.
      **kwargs: those of `Backbone`.
    """

    kind = "operation_layers"
    read = staticmethod(operation_layers.from_proto)

    def __init__(
        self,
        layer: Sequence[dict[str, Any]] | None = None,
        *,
        stem_channels: int = 16,
        last_channels: int | None = None,
        **kwargs: Any,
    ):
        published = parts.resolved(_HIT_DETECTOR).backbone.operation_layers
        if last_channels is None:
            last_channels = published.last_channels if layer is None else 0
        if layer is None:
            layer = parts.fields(published)["layer"]
        fields = {
            "layer": list(layer),
            "stem_channels": stem_channels,
            "last_channels": last_channels,
        }
        super().__init__(fields, **kwargs)


def _read_features(architecture: architecture_pb2.Architecture) -> str | list[str]:
    """Returns the features that the rest of an architecture reads, as `outputs`."""
    pyramid = architecture.feature_pyramid
    match kind := pyramid.WhichOneof("feature_pyramid_oneof"):
        case None:
            # A detector without a pyramid takes one level.
            return "last" if architecture.HasField("classifier") else f"c{levels(architecture)[0]}"
        case "ssd_layers":
            return ["expansion", "last"]
    message = getattr(pyramid, kind)
    if kind == "fpn" and message.input_level:
        return [f"c{level}" for level in message.input_level]
    names = [f"c{level}" for level in range(message.min_level, MAX_LEVEL + 1)]
    if kind == "fpn" and message.variant == architecture_pb2.Fpn.OBJECT_DETECTION_API:
        # The OD API's pyramid starts from the last 1x1 convolution, RetinaNet's from C5.
        names[-1] = "last"
    return names

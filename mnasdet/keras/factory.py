"""The parts of an architecture as Keras layers, whatever their kinds are.

image = tf_keras.Input((320, 320, 3))
pyramid = feature_pyramid(architecture)(backbone(architecture)(image))
boxes, logits = box_predictor(architecture, num_classes=90)(pyramid)
"""

from __future__ import annotations

from typing import Any

from mnasdet.errors import LayerError
from mnasdet.keras import parts
from mnasdet.keras.backbones import (
    AmoebaNetD,
    Backbone,
    BaseCode,
    MnasNet,
    MobileNetV2,
    MobileNetV3,
    OperationLayers,
    ResNet,
)
from mnasdet.keras.feature_pyramids import (
    FPN,
    NASFPN,
    FeaturePyramid,
    HitPyramid,
    MnasFPN,
    SSDLayers,
)
from mnasdet.keras.heads import (
    BoxPredictor,
    Classifier,
    ConvolutionalBoxPredictor,
    WeightSharedBoxPredictor,
)
from mnasdet.protos import architecture_pb2

_BACKBONES = (MobileNetV2, MobileNetV3, MnasNet, ResNet, AmoebaNetD, BaseCode, OperationLayers)
_PYRAMIDS = (MnasFPN, NASFPN, FPN, HitPyramid, SSDLayers)
_PREDICTORS = (ConvolutionalBoxPredictor, WeightSharedBoxPredictor)


def backbone(architecture: parts.ArchitectureLike, **kwargs: Any) -> Backbone:
    """Makes the backbone of an architecture, with what the rest of it reads for `outputs`.

    Args:
      architecture: a published one's name, the path of a .textproto (a trial's too), an
        architecture string, or the message.
      **kwargs: arguments of the layer, in place of what the architecture says.
    """
    resolved = parts.resolved(architecture)
    return _class_of(resolved, "backbone", _BACKBONES).from_architecture(resolved, **kwargs)


def feature_pyramid(architecture: parts.ArchitectureLike, **kwargs: Any) -> FeaturePyramid:
    """Makes the feature pyramid of an architecture; arguments as for `backbone`."""
    resolved = parts.resolved(architecture)
    return _class_of(resolved, "feature_pyramid", _PYRAMIDS).from_architecture(resolved, **kwargs)


def box_predictor(
    architecture: parts.ArchitectureLike, num_classes: int, **kwargs: Any
) -> BoxPredictor:
    """Makes the box predictor of an architecture; arguments as for `backbone`.

    Args:
      num_classes: without the background.
    """
    resolved = parts.resolved(architecture)
    predictor = _class_of(resolved, "box_predictor", _PREDICTORS)
    return predictor.from_architecture(resolved, num_classes, **kwargs)


def classifier(architecture: parts.ArchitectureLike, num_classes: int, **kwargs: Any) -> Classifier:
    """Makes the head of an architecture that classifies; arguments as for `backbone`."""
    return Classifier.from_architecture(architecture, num_classes, **kwargs)


def _class_of(architecture: architecture_pb2.Architecture, part: str, classes: tuple) -> Any:
    kind = getattr(architecture, part).WhichOneof(f"{part}_oneof")
    for layer in classes:
        if layer.kind == kind:
            return layer
    # A classifier has neither pyramid nor predictor.
    raise LayerError(f'architecture "{architecture.name}" has no {part}')

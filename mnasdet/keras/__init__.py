"""Backbones, feature pyramids and heads as layers of tf_keras, for models of your own.

    image = tf_keras.Input((320, 320, 3))
    c3, c4, c5 = MobileNetV2()(image)
    p3, p4, p5, p6 = MnasFPN(channels=48, repeats=4)([c3, c4, c5])
    boxes, logits = WeightSharedBoxPredictor(num_classes=90)([p3, p4, p5, p6])

Importing this makes saved models with such layers readable by `tf_keras.models.load_model`. Layers
that are named backbone, feature_pyramid and box_predictor have the variables of a detector's
checkpoint, by the same names.
"""

from mnasdet.keras.backbones import (
    AmoebaNetD,
    BaseCode,
    MnasNet,
    MobileNetV2,
    MobileNetV3,
    OperationLayers,
    ResNet,
)
from mnasdet.keras.factory import backbone, box_predictor, classifier, feature_pyramid
from mnasdet.keras.feature_pyramids import FPN, NASFPN, HitPyramid, MnasFPN, SSDLayers
from mnasdet.keras.graph_layer import GraphLayer
from mnasdet.keras.heads import Classifier, ConvolutionalBoxPredictor, WeightSharedBoxPredictor

__all__ = [
    "FPN",
    "NASFPN",
    "AmoebaNetD",
    "BaseCode",
    "Classifier",
    "ConvolutionalBoxPredictor",
    "GraphLayer",
    "HitPyramid",
    "MnasFPN",
    "MnasNet",
    "MobileNetV2",
    "MobileNetV3",
    "OperationLayers",
    "ResNet",
    "SSDLayers",
    "WeightSharedBoxPredictor",
    "backbone",
    "box_predictor",
    "classifier",
    "feature_pyramid",
]

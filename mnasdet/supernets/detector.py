"""One-stage detectors that share weights: a detector whose network is a path of a supernet."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from mnasdet.backbones.factory import backbone_features
from mnasdet.blueprint import Blueprint, Subnets
from mnasdet.detectors import one_stage
from mnasdet.detectors.network import raw_predictions
from mnasdet.networks import random_draws
from mnasdet.networks.builder import Builder
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2
from mnasdet.supernets.mnasfpn import MnasFpnSupernet


class Path:
    """The path that a supernet computes at inference.

    A plain object, so that the variable is none of the model's weights.
    """

    def __init__(self, value: np.ndarray):
        self.variable = tf.Variable(value, trainable=False)


class SharedDetector(tf_keras.Model):
    """Images to the raw predictions of one of many networks, which share their weights.

    In training every call draws a network. At inference it is the one that `choose` named.

    Attributes:
      pyramid: the layers that differ between the networks.
    """

    def __init__(self, subnets: Subnets, image_size: tuple[int, int], num_classes: int):
        """
        Args:
          subnets: they differ in their MnasFPN pyramids alone.
          image_size: (height, width) in pixels.
        """
        super().__init__(name="shared_detector")
        architectures = subnets.architectures
        base = architectures[0]
        scale: dict[str, Any] = {
            "depth_multiplier": base.depth_multiplier,
            "min_depth": base.min_depth,
        }
        b = Builder()
        features = backbone_features(b, b.input((*image_size, 3)), base.backbone, **scale)
        fpn = base.feature_pyramid.mnasfpn
        levels = features.from_level(fpn.min_level)
        self.backbone = keras_model(levels, "backbone")
        widths = [level.channels for level in levels]
        self.pyramid = MnasFpnSupernet(architectures, widths, image_size)
        self._base, self._num_classes = base, num_classes
        self.box_predictor = self._made_predictor(self.pyramid.channels)
        self._paths = np.stack([self.pyramid.format.path(each) for each in architectures])
        self._sandwich = subnets.sandwich
        # The largest: what a training's own evaluations show.
        self._path = Path(self._paths[1])

    def _made_predictor(self, channels: int) -> tf_keras.Model:
        """Returns the predictor of pyramids of a width, with fresh weights."""
        fpn = self._base.feature_pyramid.mnasfpn
        b = Builder()
        outputs = [
            b.input((*self.pyramid.size(level), channels), f"level_{level}")
            for level in range(fpn.min_level, fpn.max_level + 1)
        ]
        with b.scope("box_predictor"):
            predictions = raw_predictions(b, outputs, self._base, self._num_classes)
        return keras_model(predictions, "box_predictor")

    def choose(self, architecture: architecture_pb2.Architecture) -> None:
        """Makes inference compute this network of the space."""
        self._path.variable.assign(self.pyramid.format.path(architecture))

    def call(self, images: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        path = self._drawn() if training else self._path.variable.read_value()
        return self.of_path(images, path, training=training)

    def of_path(
        self, images: tf.Tensor, path: tf.Tensor, *, training: bool | None
    ) -> dict[str, tf.Tensor]:
        """Returns the raw predictions of one network."""
        features = self.backbone(images, training=training)
        levels = self.pyramid([*features, path], training=training)
        return self.box_predictor(levels, training=training)

    def of_chosen(self, images: tf.Tensor, *, training: bool) -> dict[str, tf.Tensor]:
        """Returns the raw predictions of the chosen network, also as in training."""
        return self.of_path(images, self._path.variable.read_value(), training=training)

    def _drawn(self) -> tf.Tensor:
        which, extreme = tf.unstack(random_draws.uniform((2,)))
        count = len(self._paths)
        number = tf.minimum(tf.cast(which * count, tf.int32), count - 1)
        number = tf.where(extreme < self._sandwich, tf.cast(which * 2, tf.int32), number)
        return tf.constant(self._paths)[number]

    def moving_averages(self) -> list[tuple[tf.Variable, float]]:
        """Returns the averages of batch normalisation, each with the share that a step keeps."""
        plain = [
            (average, layer.momentum)
            for layer in [*self.backbone.layers, *self.box_predictor.layers]
            if isinstance(layer, tf_keras.layers.BatchNormalization)
            for average in (layer.moving_mean, layer.moving_variance)
        ]
        return plain + [
            (average, norm.momentum) for norm in self.pyramid.norms for average in norm.averages
        ]

    def weights_of(self, architecture: architecture_pb2.Architecture) -> dict[str, np.ndarray]:
        """Returns the weights of a network of the space, by their names in the network."""
        found = {
            variable.name.removesuffix(":0"): variable.numpy()
            for variable in [*self.backbone.variables, *self.box_predictor.variables]
        }
        # The predictor's first layers read the first channels; the others are zero here.
        own = self._made_predictor(architecture.feature_pyramid.mnasfpn.channels)
        for variable in own.variables:
            name = variable.name.removesuffix(":0")
            found[name] = found[name][tuple(map(slice, variable.shape))]
        return found | self.pyramid.weights_of(architecture)


def build(blueprint: Blueprint) -> one_stage.Detector:
    """Returns a detector whose model is a `SharedDetector` of the blueprint's subnets."""
    assert blueprint.subnets
    plain = one_stage.build(dataclasses.replace(blueprint, subnets=None))
    model = SharedDetector(blueprint.subnets, blueprint.image_size, blueprint.num_classes)
    return dataclasses.replace(plain, blueprint=blueprint, model=model)

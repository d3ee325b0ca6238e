"""Networks that share weights: what is computed is a path of a supernet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from mnasdet.backbones.factory import backbone_features
from mnasdet.classifiers.network import LOGITS
from mnasdet.detectors.network import RawPredictions, raw_predictions
from mnasdet.feature_pyramids.factory import pyramid_features
from mnasdet.heads import classifier as classifier_head
from mnasdet.networks.builder import Builder, Node, reachable
from mnasdet.networks.features import (
    EXPANSION,
    LAST,
    MAX_LEVEL,
    BackboneFeatures,
    level_name,
    size_of,
)
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2
from mnasdet.supernets.elastic import Values, widened
from mnasdet.supernets.masks import masked
from mnasdet.supernets.mnasfpn import MnasFpnSupernet, scaled
from mnasdet.supernets.mnasnet import MnasNetSupernet

# Shapes of features by their names, (height, width, channels).
_Shapes = Mapping[str, tuple[int, ...]]


class Path:
    """The path that a supernet computes.

    A plain object, so that the variable is none of the model's weights.
    """

    def __init__(self, value: np.ndarray):
        self.variable = tf.Variable(value, trainable=False)


class SharedNetwork(tf_keras.Model):
    """Images to the raw predictions of one of many networks, which share their weights.

    It computes the network that `choose` named, or that of a path.

    Attributes:
      backbone: a `MnasNetSupernet` where the backbones differ.
      pyramid: the MnasFPN pyramids, if the networks have any. What comes after backbone or pyramid
        has the layers of the widest network.
    """

    backbone: MnasNetSupernet | tf_keras.Model
    pyramid: MnasFpnSupernet | None
    tail: tf_keras.Model

    def __init__(
        self,
        architectures: Sequence[architecture_pb2.Architecture],
        image_size: tuple[int, int],
        num_classes: int,
        like: SharedNetwork | None = None,
    ):
        """
        Args:
          architectures: they differ in their MnasNet backbones and their MnasFPN pyramids alone.
          image_size: (height, width) in pixels.
          like: the same for another image size, whose weights are shared.
        """
        super().__init__(name="shared_network")
        base = self._base = architectures[0]
        self._image_size, self._num_classes = image_size, num_classes
        features = self._features(base)
        self._base_shapes = shapes = {name: node.shape for name, node in features.items()}
        fpn = base.feature_pyramid.mnasfpn
        has_mnasfpn = base.feature_pyramid.HasField("mnasfpn")
        if has_mnasfpn:
            self._read = [level_name(level) for level in range(fpn.min_level, MAX_LEVEL + 1)]
        else:
            # Features that nothing reads are left out: each that varies would need a mask.
            outputs = tf.nest.flatten(self._tail_graph(shapes))
            self._read = [node.name for node in reachable(outputs) if node.op == "input"]
        widths = {name: {features[name].channels} for name in self._read}
        if any(each.backbone != base.backbone for each in architectures):
            self.backbone = like.backbone if like else MnasNetSupernet(architectures, self._read)
            widths = {name: self.backbone.widths[name] for name in self._read}
        else:
            read = {name: features[name] for name in self._read}
            self.backbone = keras_model(read, "backbone", like=like and like.backbone)
        self.pyramid = None
        if has_mnasfpn:
            most = [max(widths[name]) for name in self._read]
            self.pyramid = like.pyramid if like else MnasFpnSupernet(architectures, most)
            channels = {scaled(each).channels for each in architectures}
            levels = range(fpn.min_level, fpn.max_level + 1)
            widths = {level_name(level): channels for level in levels}
            shapes = {level_name(level): size_of(image_size, level) for level in levels}
        self._shapes = {name: (*shapes[name][:2], max(of)) for name, of in widths.items()}
        self._elastic = [name for name, of in widths.items() if len(of) > 1]
        self.tail = self._made_tail(like and like.tail)
        # The largest: what a training's own evaluations show.
        self._path = Path(self.path(architectures[1]))

    def _features(self, architecture: architecture_pb2.Architecture) -> dict[str, Node]:
        """Returns the backbone's features as in a network by itself."""
        b = Builder()
        image = b.input((*self._image_size, 3))
        return backbone_features(
            b,
            image,
            architecture.backbone,
            classifies=architecture.HasField("classifier"),
            **_scale(architecture),
        ).by_name

    def _tail_graph(self, shapes: _Shapes) -> RawPredictions:
        """Returns the layers after the backbone, or after a pyramid that is a supernet."""
        b, base = Builder(), self._base
        has_mnasfpn = base.feature_pyramid.HasField("mnasfpn")
        if not has_mnasfpn:
            # A pyramid counts all levels, also where it reads another feature in place of one.
            shapes = {**self._base_shapes, **shapes}
        inputs = {name: b.input(shape, name) for name, shape in shapes.items()}
        if base.HasField("classifier"):
            with b.scope("classifier"):
                logits = classifier_head.from_proto(
                    b, inputs[LAST], base.classifier, num_classes=self._num_classes
                )
            return {LOGITS: logits}
        levels = list(inputs.values())
        if not has_mnasfpn:
            features = _features_of(inputs)
            levels = pyramid_features(b, features, base.feature_pyramid, **_scale(base))[-1]
        with b.scope("box_predictor"):
            return raw_predictions(b, levels, base, self._num_classes)

    def _made_tail(self, like: tf_keras.Model | None) -> tf_keras.Model:
        """Returns the model of `_tail_graph`, with an input more for the mask of each feature that
        may have fewer channels; with the weights of `like`, or fresh ones."""
        outputs = self._tail_graph(self._shapes)
        b = Builder()
        masks = {
            name: b.input((1, 1, self._shapes[name][-1]), f"{name}_mask") for name in self._elastic
        }
        nodes = masked(tf.nest.flatten(outputs), masks)
        return keras_model(tf.nest.pack_sequence_as(outputs, nodes), "tail", like=like)

    def path(self, architecture: architecture_pb2.Architecture) -> np.ndarray:
        """Returns the path of a network of the space, [length] int32."""
        shares_backbone = isinstance(self.backbone, MnasNetSupernet)
        parts = [self.backbone.path(architecture)] if shares_backbone else []
        if self.pyramid:
            parts.append(self.pyramid.format.path(architecture))
        return np.concatenate([np.empty(0, np.int32), *parts])

    def choose(self, architecture: architecture_pb2.Architecture) -> None:
        """Makes inference compute this network of the space."""
        self._path.variable.assign(self.path(architecture))

    def call(self, images: tf.Tensor, training: bool | None = None) -> dict[str, tf.Tensor]:
        return self.of_path(images, self._path.variable.read_value(), training=training)

    def of_path(
        self, images: tf.Tensor, path: tf.Tensor, *, training: bool | None
    ) -> dict[str, tf.Tensor]:
        """Returns the raw predictions of one network."""
        if isinstance(self.backbone, MnasNetSupernet):
            length = self.backbone.path_length
            features = self.backbone([images, path[:length]], training=training)
            path = path[length:]
        else:
            features = self.backbone(images, training=training)
        if self.pyramid:
            levels = [features[name] for name in self._read]
            levels = self.pyramid([*levels, path], training=training)
            features = dict(zip(self._shapes, levels, strict=True))
        return self.tail(self._widest(features), training=training)

    def _widest(self, features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Fills features up with zeros, and adds the masks."""
        found = {}
        for name, shape in self._shapes.items():
            x = features[name]
            if name in self._elastic:
                mask = tf.cast(tf.range(shape[-1]) < tf.shape(x)[-1], x.dtype)
                found[f"{name}_mask"] = mask[None, None, None]
                x = widened(x, shape[-1])
            found[name] = tf.ensure_shape(x, [None, *shape])
        return found

    def moving_averages(self) -> list[tuple[tf.Variable, float]]:
        """Returns the averages of batch normalisation, each with the share that a step keeps."""
        found: list[tuple[tf.Variable, float]] = []
        for part in (self.backbone, self.pyramid, self.tail):
            if isinstance(part, tf_keras.Model):
                found += [
                    (average, layer.momentum)
                    for layer in part.layers
                    if isinstance(layer, tf_keras.layers.BatchNormalization)
                    for average in (layer.moving_mean, layer.moving_variance)
                ]
            elif part:
                found += [(each, norm.momentum) for norm in part.norms for each in norm.averages]
        return found

    def weights_of(self, architecture: architecture_pb2.Architecture) -> Values:
        """Returns the weights of a network of the space, by their names in the network."""
        features = self._features(architecture)
        shapes = {name: features[name].shape for name in self._read}
        if isinstance(self.backbone, MnasNetSupernet):
            found = self.backbone.weights_of(architecture)
        else:
            found = _values(self.backbone)
        if self.pyramid:
            widths = [features[name].channels for name in self._read]
            found |= self.pyramid.weights_of(architecture, widths)
            channels = scaled(architecture).channels
            shapes = {name: (*shape[:2], channels) for name, shape in self._shapes.items()}
        # The layers that read an elastic feature read its first channels; the others are zero here.
        own = {node.name: node for node in reachable(tf.nest.flatten(self._tail_graph(shapes)))}
        for name, value in _values(self.tail).items():
            layer, _, kind = name.rpartition("/")
            read = slice(own[layer].inputs[0].channels)
            # The third axis is the channels in, that of depthwise kernels as well.
            if kind.endswith("kernel"):
                value = value[:, :, read]
            elif own[layer].op in ("batch_norm", "depthwise_conv2d"):
                value = value[read]
            found[name] = value
        return found


def _scale(architecture: architecture_pb2.Architecture) -> dict[str, Any]:
    return {
        "depth_multiplier": architecture.depth_multiplier,
        "min_depth": architecture.min_depth,
    }


def _features_of(by_name: Mapping[str, Node]) -> BackboneFeatures:
    """Returns the features whose `by_name` this is."""
    levels = range(1, MAX_LEVEL + 1)
    return BackboneFeatures(
        {level: by_name[level_name(level)] for level in levels if level_name(level) in by_name},
        by_name[LAST],
        by_name.get(EXPANSION),
    )


def _values(model: tf_keras.Model) -> Values:
    return {variable.name.removesuffix(":0"): variable.numpy() for variable in model.variables}

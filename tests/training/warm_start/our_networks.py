"""Our classifiers, with the features of their backbones beside the logits."""

import tensorflow as tf
from google.protobuf import text_format

from mnasdet import config
from mnasdet.backbones.factory import backbone_features
from mnasdet.heads import classifier
from mnasdet.networks.builder import Builder
from mnasdet.networks.keras_builder import keras_layers, replay
from mnasdet.protos import architecture_pb2


class OurNetwork(tf.Module):
    """A backbone and a classifier of 1000 classes.

    Its layers are called one by one: to make a functional model of them takes twice as long.
    """

    def __init__(self, backbone, size, *, hidden_channels=0, depth_multiplier=1.0):
        """
        Args:
          backbone: a message in text, or the name of a published architecture.
          size: the side of the images.
        """
        super().__init__()
        if "{" in backbone:
            proto = text_format.Parse(backbone, architecture_pb2.Backbone())
        else:
            proto = config.load_architecture(backbone).backbone
        b = Builder()
        self._image = b.input((size, size, 3))
        features = backbone_features(
            b, self._image, proto, depth_multiplier=depth_multiplier, classifies=True
        )
        head = architecture_pb2.Classifier(hidden_channels=hidden_channels)
        with b.scope("classifier"):
            logits = classifier.from_proto(b, features.last, head, num_classes=1000)
        levels = {str(level): node for level, node in features.levels.items()}
        self._nodes = {**levels, "last": features.last, "logits": logits}
        self._layers = keras_layers(list(self._nodes.values()))
        self(tf.zeros((1, size, size, 3)))

    def __call__(self, images):
        """Returns levels "2" to "5", "last" and "logits" of images in [-1, 1]."""
        outputs = replay(list(self._nodes.values()), {self._image: images}, self._layers)
        return {name: output.numpy() for name, output in zip(self._nodes, outputs, strict=True)}


def check_close(found, expected, name):
    """They differ by 1e-4 of the largest value at most."""
    assert found.shape == expected.shape, name
    assert abs(found - expected).max() <= 1e-4 * max(1.0, abs(expected).max()), name

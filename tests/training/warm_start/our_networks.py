"""Our classifiers, with the features of their backbones beside the logits."""

from google.protobuf import text_format

from mnasdet import config
from mnasdet.backbones.factory import backbone_features
from mnasdet.heads import classifier
from mnasdet.networks.builder import Builder
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2


def our_network(backbone, size, *, hidden_channels=0, depth_multiplier=1.0, num_classes=1000):
    """A Keras model that gives levels "2" to "5", "last" and "logits" of square images.

    Args:
      backbone: a message in text, or the name of a published architecture.
    """
    if "{" in backbone:
        proto = text_format.Parse(backbone, architecture_pb2.Backbone())
    else:
        proto = config.load_architecture(backbone).backbone
    b = Builder()
    features = backbone_features(
        b,
        b.input((size, size, 3)),
        proto,
        depth_multiplier=depth_multiplier,
        classifies=True,
    )
    head = architecture_pb2.Classifier(hidden_channels=hidden_channels)
    with b.scope("classifier"):
        logits = classifier.from_proto(b, features.last, head, num_classes=num_classes)
    levels = {str(level): node for level, node in features.levels.items()}
    return keras_model({**levels, "last": features.last, "logits": logits})


def check_close(found, expected, name):
    """They differ by 1e-4 of the largest value at most."""
    assert found.shape == expected.shape, name
    assert abs(found - expected).max() <= 1e-4 * max(1.0, abs(expected).max()), name

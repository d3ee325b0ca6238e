"""Weights of tf-models-official, saved by its own code."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from google.protobuf import text_format

from mnasdet import models
from mnasdet.blueprint import Blueprint
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.protos import architecture_pb2, classification_pb2
from mnasdet.training.warm_start import load
from tests.training.warm_start import foreign_checkpoints as foreign

SIDE = 64

# ImageNet's, as official/vision/ops/preprocess_ops.py has them.
MEAN = np.array([0.485, 0.456, 0.406], "f4")
DEVIATION = np.array([0.229, 0.224, 0.225], "f4")


def official_mobilenet():
    from official.vision.modeling.backbones import mobilenet

    spec = tf_keras.layers.InputSpec(shape=[None, SIDE, SIDE, 3])
    return mobilenet.MobileNet("MobileNetV2", filter_size_scale=0.5, input_specs=spec)


def official_resnet():
    from official.vision.modeling.backbones import resnet

    spec = tf_keras.layers.InputSpec(shape=[None, SIDE, SIDE, 3])
    # The epsilon of its classifiers' configs.
    return resnet.ResNet(50, input_specs=spec, norm_epsilon=1e-5)


@pytest.mark.parametrize(
    ("make", "ours", "layer"),
    [
        (
            official_mobilenet,
            "depth_multiplier: 0.5 min_depth: 8 backbone { mobilenet_v2 {} } classifier {}",
            "backbone/layer_18/project/batch_norm",
        ),
        (
            official_resnet,
            "backbone { resnet { depth: 50 } } classifier {}",
            "backbone/stage_5/block_3/relu",
        ),
    ],
)
def test_features_are_the_same(tmp_path, make, ours, layer):
    backbone = make()
    for variable in backbone.variables:
        if "moving" in variable.name or "gamma" in variable.name:
            variable.assign(foreign.value_of(variable.name, tuple(variable.shape)))
    # Zeros around an image are another colour there than here, which no weights make up for. This
    # kernel does not see the difference of the two.
    grey = (0.5 - MEAN) / DEVIATION
    stem = next(one for one in backbone.variables if one.shape.rank == 4)
    along = np.einsum("hwio,i->hwo", stem, grey) / (grey @ grey)
    stem.assign_sub(along[:, :, np.newaxis] * grey[:, np.newaxis])
    # As its trainer saves a task: the model, and the backbone by itself.
    prefix = tf.train.Checkpoint(backbone=backbone).save(str(tmp_path / "ckpt"))
    architecture = text_format.Parse(ours, architecture_pb2.Architecture())
    settings = classification_pb2.Classification()
    resizer = ImageResizer((SIDE, SIDE))
    task = models.build(Blueprint("classification", architecture, resizer, 3, settings))
    report = load.load(task.model, prefix)
    assert not report.unmatched
    assert not report.misshapen
    pixels = np.random.default_rng(1).uniform(0, 1, (2, SIDE, SIDE, 3)).astype("f4")
    theirs = backbone((pixels - MEAN) / DEVIATION, training=False)["5"]
    output = task.model.get_layer(layer).output
    found = tf_keras.Model(task.model.inputs, output)(2 * pixels - 1, training=False)
    np.testing.assert_allclose(found, theirs, atol=1e-4)

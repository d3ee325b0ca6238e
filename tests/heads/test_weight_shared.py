"""The shared predictor: what is shared, the order of predictions."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mnasdet.heads.weight_shared import DEFAULT, from_proto, weight_shared_predictor
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import box_predictor_pb2


def predictor(sizes=(4, 2), **arguments):
    b = Builder()
    features = [b.input((size, size, 8), f"p{size}") for size in sizes]
    boxes, classes = weight_shared_predictor(
        b, features, num_classes=3, anchors_per_location=2, channels=8, num_layers=2, **arguments
    )
    return keras_model({"boxes": boxes, "classes": classes})


def test_shapes():
    shapes = {name: tuple(out.shape) for name, out in predictor().output.items()}
    assert shapes == {"boxes": (None, 40, 4), "classes": (None, 40, 4)}


def test_kernels_are_shared_and_batch_norms_are_not():
    names = [variable.name for variable in predictor().trainable_variables]
    assert sum("pointwise/kernel" in name for name in names) == 2 + 2
    assert sum("gamma" in name for name in names) == 2 * 2


def test_two_towers():
    names = [v.name for v in predictor(share_tower=False, separable=False).trainable_variables]
    assert sum("box_tower" in name and "kernel" in name for name in names) == 2
    assert sum("class_tower" in name and "kernel" in name for name in names) == 2


def test_towers_have_batch_norms_of_their_own_for_every_level():
    names = [v.name for v in predictor(share_tower=False, separable=False).trainable_variables]
    gammas = {name.split("/batch_norm")[0] for name in names if "gamma" in name}
    assert gammas == {
        f"{tower}/{layer}/feature_{level}"
        for tower in ("box_tower", "class_tower")
        for layer in (0, 1)
        for level in (0, 1)
    }


def test_boxes_and_classes_come_from_their_own_towers():
    model = predictor(sizes=(2,), share_tower=False, separable=False)
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 8)).astype(np.float32)
    before = model(x)
    for variable in model.variables:
        if variable.name.startswith("class_tower"):
            variable.assign(tf.zeros_like(variable))
    after = model(x)
    np.testing.assert_array_equal(after["boxes"], before["boxes"])
    # Nothing comes through the class tower any more but the bias.
    np.testing.assert_allclose(after["classes"], np.full((1, 8, 4), -4.6), rtol=1e-6)


def test_towers_without_batch_norm_have_biases():
    hyperparams = dataclasses.replace(DEFAULT, normalizer=None)
    for separable in (True, False):
        model = predictor(share_tower=False, separable=separable, hyperparams=hyperparams)
        names = [variable.name for variable in model.variables]
        assert sum("bias" in name for name in names) == 2 * 2 + 2
        assert not any("batch_norm" in name for name in names)


def test_the_kernels_that_predict_may_start_otherwise():
    proto = box_predictor_pb2.WeightSharedConvolutionalBoxPredictor(
        depth=64, num_layers_before_predictor=1
    )
    proto.conv_hyperparams.initializer.random_normal_initializer.stddev = 0.01
    proto.prediction_initializer.random_normal_initializer.stddev = 1e-5
    b = Builder()
    outputs = from_proto(
        b, [b.input((8, 8, 64), "p3")], proto, num_classes=3, anchors_per_location=[2]
    )
    model = keras_model(dict(zip(("boxes", "classes"), outputs, strict=True)))
    deviations = {
        v.name.split("/")[0]: float(np.std(v)) for v in model.variables if "kernel" in v.name
    }
    assert deviations == {
        "box_tower": pytest.approx(0.01, rel=0.05),
        "class_tower": pytest.approx(0.01, rel=0.05),
        "box": pytest.approx(1e-5, rel=0.05),
        "class": pytest.approx(1e-5, rel=0.05),
    }


def test_weights_of_retinanets_predictor():
    # Two towers of four 3x3 convolutions, 256 wide, with batch normalisation for five levels.
    b = Builder()
    features = [b.input((size, size, 256), f"p{size}") for size in (80, 40, 20, 10, 5)]
    outputs = weight_shared_predictor(
        b,
        features,
        num_classes=90,
        anchors_per_location=9,
        channels=256,
        share_tower=False,
        separable=False,
    )
    total = cost_sheet(outputs).total
    kernel = 9 * 256
    towers = 2 * 4 * (kernel * 256 + 5 * 2 * 256)
    assert total.trainable_params == towers + (kernel + 1) * (9 * 4 + 9 * 91)
    locations = 80**2 + 40**2 + 20**2 + 10**2 + 5**2
    assert total.multiply_adds == locations * kernel * (2 * 4 * 256 + 9 * 4 + 9 * 91)


def test_class_bias_and_order_of_anchors():
    tf_keras.utils.set_random_seed(0)
    model = predictor(sizes=(2,), class_bias=-4.6)
    bias = next(v for v in model.variables if v.name.startswith("class/pointwise/bias"))
    np.testing.assert_allclose(bias, np.full(2 * 4, -4.6), rtol=1e-6)
    bias.assign(np.arange(8))
    for variable in model.variables:
        if variable.name.startswith("class/pointwise/kernel"):
            variable.assign(tf.zeros_like(variable))
    out = model(np.zeros((1, 2, 2, 8), np.float32))["classes"][0]
    # Only the bias speaks, anchor by anchor at every location.
    np.testing.assert_allclose(out, np.tile(np.arange(8).reshape(2, 4), (4, 1)))

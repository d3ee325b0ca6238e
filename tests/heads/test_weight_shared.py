"""The shared predictor: what is shared, the order of predictions."""

import numpy as np
import tensorflow as tf
import tf_keras

from mnasdet.heads.weight_shared import weight_shared_predictor
from mnasdet.networks.builder import Builder
from mnasdet.networks.keras_builder import keras_model


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

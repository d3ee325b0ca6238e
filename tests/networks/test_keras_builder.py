"""Keras models: values, weights that are shared."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mnasdet.networks.builder import Builder
from mnasdet.networks.hyperparams import Initializer, Kernel
from mnasdet.networks.keras_builder import keras_model


def test_names_become_layer_names_and_shared_layers_are_one():
    b = Builder()
    x = b.input((8, 8, 4))
    y = b.conv2d(x, 4, 1, kernel=Kernel(), name="conv", shared=True)
    y = b.conv2d(y, 4, 1, kernel=Kernel(), name="conv", shared=True)
    model = keras_model({"out": y})
    assert [v.name for v in model.variables] == ["conv/kernel:0"]
    kernel = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    model.variables[0].assign(kernel)
    image = np.ones((1, 8, 8, 4), np.float32)
    expected = np.ones(4) @ kernel[0, 0] @ kernel[0, 0]
    np.testing.assert_allclose(model(image)["out"][0, 0, 0], expected)


def test_layers_of_a_single_column_compute_in_float32():
    b = Builder()
    x = b.input((4, 4, 2))
    x = b.conv2d(x, 2, 3, strides=2, kernel=Kernel(), name="wide")
    x = b.conv2d(x, 2, 3, kernel=Kernel(), name="shared", shared=True)
    x = b.depthwise_conv2d(x, 3, strides=2, kernel=Kernel(), name="to_one")
    x = b.conv2d(x, 2, 3, kernel=Kernel(), name="shared", shared=True)
    x = b.conv2d(x, 2, 1, kernel=Kernel(), name="point")
    x = b.depthwise_conv2d(x, 3, strides=2, kernel=Kernel(), name="narrow")
    tf_keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = keras_model({"out": x})
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    found = {name: model.get_layer(name).compute_dtype for name in ("wide", "to_one", "point")}
    assert found == dict.fromkeys(found, "bfloat16")
    assert {model.get_layer(name).compute_dtype for name in ("shared", "narrow")} == {"float32"}
    assert model(tf.ones((1, 4, 4, 2)))["out"].dtype == tf.float32


@pytest.mark.parametrize("size", [(8, 12), (5, 7)])
def test_upsample_is_nearest_neighbour_with_the_gradient_of_a_sum(size):
    b = Builder()
    x = b.input((4, 4, 2))
    model = keras_model({"out": b.upsample(x, size, name="up")})
    image = tf.random.stateless_normal((1, 4, 4, 2), (0, 1))
    rows = np.arange(size[0]) * 4 // size[0]
    columns = np.arange(size[1]) * 4 // size[1]
    weights = tf.random.stateless_normal((1, *size, 2), (0, 2))
    with tf.GradientTape() as tape:
        tape.watch(image)
        out = model(image)["out"]
        loss = tf.reduce_sum(out * weights)
    np.testing.assert_array_equal(out, image.numpy()[:, rows][:, :, columns])
    expected = np.zeros((1, 4, 4, 2), np.float32)
    np.add.at(expected, np.ix_([0], rows, columns, [0, 1]), weights.numpy())
    np.testing.assert_allclose(tape.gradient(loss, image), expected, rtol=1e-5)


def test_upsampling_compiles_under_xla():
    b = Builder()
    model = keras_model({"out": b.upsample(b.input((4, 4, 2)), (8, 8), name="up")})

    @tf.function(jit_compile=True)
    def gradient(image):
        with tf.GradientTape() as tape:
            tape.watch(image)
            loss = tf.reduce_sum(model(image)["out"] ** 2)
        return tape.gradient(loss, image)

    np.testing.assert_allclose(gradient(tf.ones((1, 4, 4, 2))), np.full((1, 4, 4, 2), 8.0))


@pytest.mark.parametrize(
    ("initializer", "kernel_size", "expected"),
    [
        (Initializer("normal", 0.03), 3, 0.03),
        (Initializer("truncated_normal"), 3, np.sqrt(2 / (9 * 64))),
        (Initializer("uniform", scale=1.0, mode="fan_out"), 1, np.sqrt(1 / 256)),
    ],
)
def test_initializers_have_their_deviation(initializer, kernel_size, expected):
    tf_keras.utils.set_random_seed(0)
    b = Builder()
    y = b.conv2d(b.input((8, 8, 64)), 256, kernel_size, kernel=Kernel(initializer), name="conv")
    (kernel,) = keras_model({"out": y}).variables
    assert np.std(kernel) == pytest.approx(expected, rel=0.02)


def test_a_depthwise_kernel_has_the_fan_of_one_channel():
    tf_keras.utils.set_random_seed(0)
    b = Builder()
    y = b.depthwise_conv2d(b.input((8, 8, 4096)), 3, kernel=Kernel(), name="conv")
    (kernel,) = keras_model({"out": y}).variables
    assert np.std(kernel) == pytest.approx(np.sqrt(2 / 9), rel=0.02)

"""mnasdet/networks/layers.py, by numpy."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mnasdet.networks.builder import Builder
from mnasdet.networks.hyperparams import Kernel
from mnasdet.networks.keras_builder import keras_model
from mnasdet.networks.layers import DenseConv2D, GroupNormalization
from mnasdet.training import runtime

RNG = np.random.default_rng(0)


def model(make, shape=(7, 5, 8)):
    b = Builder()
    return keras_model({"y": make(b, b.input(shape))})


def normal(*shape):
    return RNG.normal(2, 3, shape).astype(np.float32)


def test_group_norm_normalises_every_image_and_group_by_itself():
    net = model(lambda b, x: b.group_norm(x, groups=4, epsilon=0.01, name="part/group_norm"))
    gamma, beta = net.trainable_variables
    assert [gamma.name, beta.name] == ["part/group_norm/gamma:0", "part/group_norm/beta:0"]
    gamma.assign(normal(8))
    beta.assign(normal(8))
    x = normal(3, 7, 5, 8)
    expected = np.empty_like(x)
    for image in range(3):
        for group in range(4):
            place = (image, ..., slice(2 * group, 2 * group + 2))
            expected[place] = (x[place] - x[place].mean()) / np.sqrt(x[place].var() + 0.01)
    expected = expected * gamma.numpy() + beta.numpy()
    np.testing.assert_allclose(net(x)["y"], expected, atol=1e-4)


def test_group_norm_is_that_of_tf_keras():
    ours, theirs = (
        kind(4, epsilon=1e-5) for kind in (GroupNormalization, tf_keras.layers.GroupNormalization)
    )
    x = tf.constant(normal(2, 7, 5, 8))
    gradients = []
    for layer in (ours, theirs):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x) ** 3)
        gradients.append(tape.gradient(loss, x))
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)
    np.testing.assert_allclose(*gradients, atol=1e-3)
    assert ours.get_config().keys() == theirs.get_config().keys()


def conv(b, x, **kernel):
    return b.conv2d(x, 6, 3, groups=2, kernel=Kernel(**kernel), use_bias=True, name="conv")


def depthwise(b, x, **kernel):
    return b.depthwise_conv2d(
        x, 3, strides=2, kernel=Kernel(**kernel), use_bias=True, name="depthwise"
    )


@pytest.mark.parametrize("make", [conv, depthwise])
def test_a_standardised_kernel_has_mean_0_and_variance_1_in_every_output_channel(make):
    plain = model(make)
    standardized = model(lambda b, x: make(b, x, standardized=True))
    kernel, bias = standardized.trainable_variables
    assert [v.name for v in plain.trainable_variables] == [kernel.name, bias.name]
    values = normal(*kernel.shape)
    kernel.assign(values)
    bias.assign(normal(*bias.shape))
    # Output channels are last; a depthwise kernel's are (height, width, channels, 1).
    axes = (0, 1, 2) if make is conv else (0, 1)
    values = (values - values.mean(axes, keepdims=True)) / values.std(axes, keepdims=True)
    for variable, value in zip(plain.trainable_variables, (values, bias), strict=True):
        variable.assign(value)
    x = normal(2, 7, 5, 8)
    np.testing.assert_allclose(standardized(x)["y"], plain(x)["y"], atol=1e-3)


def test_gradients_of_a_kernel_of_one_weight_are_finite():
    net = model(
        lambda b, x: b.depthwise_conv2d(x, 1, kernel=Kernel(standardized=True), name="depthwise")
    )
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(net(normal(1, 7, 5, 8))["y"])
    (gradient,) = tape.gradient(loss, net.trainable_variables)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("make", ["conv2d", "depthwise_conv2d"])
@pytest.mark.parametrize("standardized", [False, True])
def test_dilation_puts_zeros_between_the_weights_of_a_kernel(make, standardized):
    def layer(b, x, size, **arguments):
        filters = (4,) if make == "conv2d" else ()
        return getattr(b, make)(x, *filters, size, name="conv", **arguments)

    kernel = Kernel(standardized=standardized)
    dilated = model(lambda b, x: layer(b, x, 3, dilation=2, kernel=kernel))
    plain = model(lambda b, x: layer(b, x, 5, kernel=Kernel()))
    values = normal(*dilated.trainable_variables[0].shape)
    if standardized:
        axes = (0, 1, 2) if make == "conv2d" else (0, 1)
        values = (values - values.mean(axes, keepdims=True)) / values.std(axes, keepdims=True)
    dilated.trainable_variables[0].assign(values)
    spread = np.zeros(plain.trainable_variables[0].shape, np.float32)
    spread[::2, ::2] = values
    plain.trainable_variables[0].assign(spread)
    x = normal(2, 7, 5, 8)
    np.testing.assert_allclose(dilated(x)["y"], plain(x)["y"], atol=1e-3)


def test_a_synchronised_normalisation_has_the_weights_and_the_outputs_of_a_plain_one():
    def layer(b, x, synchronized):
        return b.batch_norm(
            x, momentum=0.9, epsilon=0.01, synchronized=synchronized, name="batch_norm"
        )

    plain = model(lambda b, x: layer(b, x, False))
    synchronized = model(lambda b, x: layer(b, x, True))
    assert not plain.get_layer("batch_norm").synchronized
    assert synchronized.get_layer("batch_norm").synchronized
    assert [v.name for v in plain.variables] == [v.name for v in synchronized.variables]
    for variables in zip(plain.variables, synchronized.variables, strict=True):
        value = abs(normal(8))
        for variable in variables:
            variable.assign(value)
    x = normal(3, 7, 5, 8)
    np.testing.assert_allclose(
        synchronized(x, training=False)["y"], plain(x, training=False)["y"], atol=1e-4
    )


@pytest.mark.parametrize(
    ("shape", "size", "strides"), [((7, 6), 3, 2), ((8, 8), 2, 2), ((5, 9), 3, 1), ((9, 7), 3, 4)]
)
def test_max_pooling_has_tensorflows_gradient_under_xla_where_it_is_deterministic(
    shape, size, strides
):
    net = model(lambda b, x: b.max_pool(x, size, strides=strides, name="pool"), (*shape, 2))
    # Few values, and so many ties, which TensorFlow's CPU gives to the first one.
    x = tf.constant(RNG.integers(-2, 2, (3, *shape, 2)), tf.float32)
    expected, gradient = pooled(lambda x: tf.nn.max_pool2d(x, size, strides, "SAME"), x)
    of_layer = [pooled(lambda x: net(x)["y"], x)]
    runtime.seed_everything(0)  # Determinism, without which TensorFlow's own compiles as well.
    of_layer.append(pooled(tf.function(lambda x: net(x)["y"], jit_compile=True), x))
    for y, dx in of_layer:
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_allclose(dx, gradient, rtol=1e-6)


def pooled(function, x):
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
        loss = tf.reduce_sum(y * tf.reshape(tf.range(tf.size(y), dtype=tf.float32), y.shape))
    return y, tape.gradient(loss, x)


def test_a_dense_layer_is_a_convolution_of_one_pixel():
    x = np.random.default_rng(0).normal(size=(6, 1, 1, 5)).astype(np.float32)
    dense, convolution = DenseConv2D(3, 1), tf_keras.layers.Conv2D(3, 1)
    dense(x)
    convolution(x)
    convolution.set_weights([weight + 0.5 for weight in dense.get_weights()])
    dense.set_weights(convolution.get_weights())
    np.testing.assert_allclose(dense(x), convolution(x), rtol=1e-5)

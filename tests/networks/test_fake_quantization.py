"""mnasdet/networks/fake_quantization.py: rounding as numpy does it, and as TFLite then does."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mnasdet import config
from mnasdet.architectures import smallest_image_size
from mnasdet.models import network_of
from mnasdet.networks import fake_quantization
from mnasdet.networks.builder import Builder, reachable
from mnasdet.networks.fake_quantization import KernelRange, LoneBatchNorm, MovingRange, observing
from mnasdet.networks.hyperparams import Initializer, Kernel
from mnasdet.networks.keras_builder import keras_model
from mnasdet.tflite.convert import convert
from mnasdet.tflite.interpreter import TfliteModel
from tests.harness import operations_with_types

NORMAL = Initializer("normal", 0.3)


@pytest.mark.parametrize("shape", [(3, 3, 5, 7), (3, 3, 7, 1)])
def test_a_kernel_is_rounded_channel_by_channel(shape):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    axes = (0, 1, 3) if shape[3] == 1 else (0, 1, 2)
    scale = np.abs(kernel).max(axes, keepdims=True) / 127
    rounded = KernelRange()(tf.constant(kernel), True, {})
    np.testing.assert_allclose(rounded, np.round(kernel / scale) * scale, atol=1e-6)


def test_a_range_starts_with_the_first_batch_and_moves_slowly():
    layer = tf_keras.layers.Layer()
    quantizer = MovingRange()
    ends = quantizer.build(None, "", layer)
    first, second = tf.constant([-2.0, 0.5, 3.0]), tf.constant([1.0, 5.0])
    quantizer(first, True, ends)
    assert (float(ends["min"]), float(ends["max"])) == (-2, 3)
    with observing():
        # Zero is in every range.
        np.testing.assert_array_equal(quantizer(second, True, ends), second)
    low, high = 0.99 * -2, 0.99 * 3 + 0.01 * 5
    np.testing.assert_allclose((ends["min"], ends["max"]), (low, high), rtol=1e-6)
    scale = (high - low) / 255
    # The range moves by less than a step, so that zero is a multiple.
    x = np.float32([-9, -1, 0, 0.3, 2, 9])
    zero = np.round(-low / scale)
    expected = (np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale
    np.testing.assert_allclose(quantizer(tf.constant(x), False, ends), expected, atol=1e-5)
    assert float(ends["max"]) == pytest.approx(high)


def test_a_lone_batch_normalisation_is_the_same_for_inference():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    for center, scale in ((True, True), (False, False)):
        plain = tf_keras.layers.BatchNormalization(center=center, scale=scale)
        lone = LoneBatchNorm(center=center, scale=scale)
        plain(x), lone(x)
        weights = [rng.uniform(0.5, 2, w.shape) for w in plain.get_weights()]
        plain.set_weights(weights)
        lone.set_weights(weights)
        np.testing.assert_allclose(lone(x, training=False), plain(x, training=False), atol=1e-5)
        np.testing.assert_allclose(lone(x, training=True), plain(x, training=True), atol=1e-5)


def every_layer(b):
    """A network with every layer that there is, in the places that they have in detectors."""

    def conv(x, filters, name, size=1, **arguments):
        return b.conv2d(x, filters, size, kernel=Kernel(NORMAL), name=name, **arguments)

    def norm(x, name):
        return b.batch_norm(x, momentum=0.9, epsilon=0.001, name=name)

    x = b.input((16, 16, 3))
    x = b.activation(norm(conv(x, 8, "stem", 3, strides=2), "stem_norm"), "relu6", name="relu6")
    y = b.depthwise_conv2d(x, 3, kernel=Kernel(NORMAL), name="depthwise")
    y = b.activation(norm(y, "depthwise_norm"), "hard_swish", name="hard_swish")
    gate = b.global_avg_pool(y, name="mean")
    gate = b.activation(conv(gate, 4, "squeeze", use_bias=True), "relu", name="squeezed")
    gate = b.activation(conv(gate, 8, "excite", use_bias=True), "hard_sigmoid", name="gate")
    y = b.multiply(y, gate, name="excited")
    x = b.add(x, b.dropout(norm(conv(y, 8, "linear"), "linear_norm"), 0.1, name="drop"), name="sum")
    y = b.activation(norm(conv(x, 8, "swish_conv"), "swish_norm"), "swish", name="swish")
    coarse = b.max_pool(x, 3, strides=2, name="max_pool")
    gate = b.activation(b.global_max_pool(coarse, name="peak"), "sigmoid", name="sigmoid")
    x = b.add(b.multiply(x, gate, name="gated"), y, name="merged")
    x = b.activation(x, "relu", name="merged_relu")
    coarse = b.concat([coarse, b.avg_pool(x, 2, strides=2, name="avg_pool")], axis=-1, name="both")
    coarse = conv(coarse, 8, "narrow")
    normed = norm(coarse, "lone_norm")
    coarse = b.add(b.activation(coarse, "relu", name="lone_relu"), normed, name="lone")
    x = b.drop_block(b.upsample(coarse, (8, 8), name="up"), 0.9, 3, name="drop_block")
    flat = []
    for place, level in enumerate((x, coarse)):
        y = norm(conv(level, 8, "tower", 3, shared=True), f"tower_norm_{place}")
        y = b.activation(y, "relu6", name=f"tower_relu_{place}")
        y = conv(y, 4, "predict", use_bias=True, shared=True)
        flat.append(b.reshape(y, (y.shape[0] * y.shape[1], 4), name=f"flat_{place}"))
    return b.concat(flat, name="concat")


def kinds(outputs):
    """The layers of a network; activations by their functions."""
    return {node.attrs.get("function", node.op) for node in reachable(outputs)}


def test_every_layer_of_the_published_architectures_is_among_them():
    published = set()
    for name in config.architecture_names():
        architecture = config.load_architecture(name)
        if architecture.HasField("region_head"):
            # Two stages are no TFLite files.
            continue
        size = (smallest_image_size(architecture),) * 2
        published |= kinds(network_of(architecture, size, 3).outputs)
    assert published <= kinds([every_layer(Builder())])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def models(images):
    """Plain and quantised, with the same weights; the ranges are those of the images."""
    tf_keras.utils.set_random_seed(0)
    outputs = {"predictions": every_layer(Builder())}
    plain, quantized = keras_model(outputs), keras_model(outputs, quantized=True)
    names = {variable.name: variable for variable in quantized.variables}
    for variable in plain.variables:
        names[variable.name].assign(variable)
    for layer in quantized.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization | tf_keras.layers.Dropout):
            layer.trainable = False
    with observing():
        quantized(images, training=True)
    return plain, quantized


def test_a_quantised_model_is_the_plain_one_but_for_rounding(models, images):
    plain, quantized = models
    expected = plain(images, training=False)["predictions"].numpy()
    error = np.abs(quantized(images, training=False)["predictions"] - expected)
    assert 0 < error.mean() < 0.05 * expected.std()


def test_every_kernel_of_the_graph_is_int8_and_rounds_as_in_training(models, images):
    _, quantized = models
    graph = convert(quantized, "int8")
    operations = operations_with_types(graph)
    assert operations[0] == ("QUANTIZE", {"int8"})
    assert operations[-1] == ("DEQUANTIZE", {"float32"})
    floating = [op for op in operations[1:-1] if op[1] != {"int8"}]
    assert not floating
    names = [name for name, _ in operations]
    assert names.count("HARD_SWISH") == 1
    assert names.count("QUANTIZE") <= 2
    expected = quantized(images, training=False)["predictions"].numpy()
    step = (expected.max() - expected.min()) / 255
    error = np.abs(TfliteModel(graph).predict(images)["predictions"] - expected)
    assert np.mean(error) < 2 * step


def test_gradients_reach_every_weight(models, images):
    _, quantized = models
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(quantized(images, training=True)["predictions"] ** 2)
    gradients = tape.gradient(loss, quantized.trainable_variables)
    dead = [
        variable.name
        for variable, gradient in zip(quantized.trainable_variables, gradients, strict=True)
        if gradient is None or not np.any(gradient)
    ]
    assert dead == []


def test_observing_ends_with_its_block():
    with pytest.raises(KeyError), observing():
        assert fake_quantization._observing
        raise KeyError
    assert not fake_quantization._observing

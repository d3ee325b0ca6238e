"""mnasdet/networks/deformable.py, by numpy."""

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.errors import ConfigError
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.deformable import DeformableConv2D, deformable_conv2d
from mnasdet.networks.hyperparams import Kernel
from mnasdet.networks.keras_builder import keras_model
from mnasdet.tflite.latency.network_graph import network_graph

RNG = np.random.default_rng(0)
GROUPS, SIZE = 2, 3


def inputs(height=5, width=4, channels=4, filters=3, spread=3.0):
    """Features, offsets and a kernel; with this spread many samples are outside."""
    x = RNG.normal(size=(2, height, width, channels))
    offsets = RNG.normal(0, spread, (2, height, width, GROUPS * SIZE**2 * 2))
    kernel = RNG.normal(size=(SIZE, SIZE, channels, filters))
    return [value.astype(np.float32) for value in (x, offsets, kernel)]


def bilinear(feature, y, x):
    """The value of one channel at a point: every pixel weighs by its distance."""
    rows, columns = np.indices(feature.shape)
    weights = np.maximum(1 - abs(rows - y), 0) * np.maximum(1 - abs(columns - x), 0)
    return np.sum(weights * feature)


def by_numpy(x, offsets, kernel):
    batch, height, width, channels = x.shape
    out = np.zeros((batch, height, width, kernel.shape[-1]))
    offsets = offsets.reshape(batch, height, width, GROUPS, SIZE, SIZE, 2)
    for image, row, column, channel, i, j in np.ndindex(*x.shape, SIZE, SIZE):
        group = channel // (channels // GROUPS)
        y, z = offsets[image, row, column, group, i, j]
        value = bilinear(x[image, ..., channel], row + i - 1 + y, column + j - 1 + z)
        out[image, row, column] += value * kernel[i, j, channel]
    return out


def test_a_deformable_convolution_samples_beside_its_places():
    x, offsets, kernel = inputs()
    # Whole pixels and places far away, too.
    offsets[0] = np.round(offsets[0])
    offsets[1, 0] *= 1000
    expected = by_numpy(x, offsets, kernel)
    np.testing.assert_allclose(deformable_conv2d(x, offsets, kernel, GROUPS), expected, atol=1e-5)


def test_without_offsets_it_is_the_plain_convolution():
    x, offsets, kernel = inputs(height=7, width=6)
    found = deformable_conv2d(x, 0 * offsets, kernel, GROUPS)
    np.testing.assert_allclose(found, tf.nn.conv2d(x, kernel, 1, "SAME"), atol=1e-5)


def gradients(function, values, weights):
    tensors = [tf.convert_to_tensor(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = tf.reduce_sum(function(*tensors, GROUPS) * weights)
    return tape.gradient(loss, tensors)


def test_gradients_are_those_of_finite_differences():
    values = inputs(height=3, width=3)
    # Interpolation has a corner at every whole pixel: keep the samples away from there.
    values[1] = np.round(values[1]) + RNG.uniform(0.2, 0.8, values[1].shape).astype(np.float32)
    weights = RNG.normal(size=(2, 3, 3, 3)).astype(np.float32)
    for place, gradient in enumerate(gradients(deformable_conv2d, values, weights)):
        for _ in range(8):
            index = tuple(RNG.integers(values[place].shape))
            ends = []
            for step in (0.05, -0.05):
                moved = [value.astype(np.float64) for value in values]
                moved[place][index] += step
                ends.append(np.sum(by_numpy(*moved) * weights))
            # The convolution is linear in each value as long as no sample crosses a pixel.
            expected = (ends[0] - ends[1]) / 0.1
            np.testing.assert_allclose(gradient.numpy()[index], expected, atol=1e-4)


def test_xla_computes_the_same_value_and_the_same_gradients():
    values = inputs()
    weights = RNG.normal(size=(2, 5, 4, 3)).astype(np.float32)
    compiled = tf.function(
        lambda *values: gradients(deformable_conv2d, values, weights),
        jit_compile=True,
        autograph=False,
    )
    plain = gradients(deformable_conv2d, values, weights)
    for found, expected in zip(compiled(*values), plain, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    found = tf.function(deformable_conv2d, jit_compile=True, autograph=False)(*values, GROUPS)
    np.testing.assert_allclose(found, by_numpy(*values), atol=1e-5)


def network(sizes=((5, 4),), l2=0.0):
    kernel = Kernel(l2=l2)
    b = Builder()
    outputs = {}
    for level, size in enumerate(sizes):
        x = b.input((*size, 4), f"x_{level}")
        guide = b.stop_gradient(b.input((*size, 2), f"guide_{level}"), name=f"stop_{level}")
        offsets = b.conv2d(guide, 36, 1, kernel=kernel, name="offset", shared=True)
        outputs[f"y_{level}"] = b.deformable_conv2d(
            x, offsets, 3, 3, deformable_groups=GROUPS, kernel=kernel, name="conv", shared=True
        )
    return outputs


def test_levels_share_the_layer_and_the_guide_gets_no_gradient():
    model = keras_model(network([(5, 4), (3, 3)], 0.5))
    assert [v.name for v in model.variables] == ["offset/kernel:0", "conv/kernel:0"]
    assert len(model.losses) == 2
    x = {v.name: tf.random.normal((2, *v.shape[1:])) for v in model.inputs}
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = model(x)
        loss = tf.add_n([tf.reduce_sum(y**2) for y in outputs.values()])
    of_inputs, of_weights = tape.gradient(loss, (x, model.trainable_variables))
    assert of_inputs["guide_0"] is None
    assert of_inputs["x_0"] is not None
    assert all(np.abs(gradient).max() > 0 for gradient in of_weights)
    offsets = x["guide_1"] @ model.variables[0][0, 0]
    expected = by_numpy(x["x_1"].numpy(), offsets.numpy(), model.variables[1].numpy())
    np.testing.assert_allclose(outputs["y_1"], expected, atol=1e-5)


def test_half_precision_keeps_the_places():
    x, offsets, kernel = inputs(height=3, width=600)
    # Between the pixels 512 and 1024 bfloat16 knows every fourth one.
    offsets[:] = 0.5
    found = deformable_conv2d(
        tf.cast(x, tf.bfloat16), tf.cast(offsets, tf.bfloat16), tf.cast(kernel, tf.bfloat16), GROUPS
    )
    expected = deformable_conv2d(x, offsets, kernel, GROUPS)
    error = tf.cast(found, tf.float32) - expected
    assert np.std(error) < 0.02 * np.std(expected)


def test_it_costs_what_the_plain_convolution_costs():
    (graph,) = cost_sheet(list(network().values())).graphs
    cost = graph.costs[-1]
    assert (cost.params, cost.trainable_params) == (9 * 4 * 3, 9 * 4 * 3)
    assert cost.multiply_adds == 5 * 4 * 9 * 4 * 3
    assert graph.costs[0].multiply_adds == graph.costs[0].params == 0


def test_tflite_has_none():
    outputs = network()
    with pytest.raises(ConfigError, match="layer conv: TFLite has no int8 kernel for deformable"):
        keras_model(outputs, quantized=True)
    with pytest.raises(ConfigError, match="layer conv: TFLite has no deformable_conv2d"):
        network_graph(list(outputs.values()))


def test_the_layer_can_be_saved():
    layer = DeformableConv2D(3, 3, GROUPS, kernel_regularizer="l2")
    again = DeformableConv2D.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()


def test_offsets_must_fit():
    b = Builder()
    x = b.input((5, 4, 4))
    with pytest.raises(ValueError, match="they need 18 channels"):
        b.deformable_conv2d(x, b.input((5, 4, 36)), 3, 3, kernel=Kernel(), name="conv")

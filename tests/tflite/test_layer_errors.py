"""mnasdet/tflite/layer_errors.py: the layer that does not bear quantisation is found."""

import numpy as np
import pytest
import tf_keras

from mnasdet.tflite.convert import convert
from mnasdet.tflite.layer_errors import worst_layers


@pytest.fixture(scope="module")
def model():
    """Three convolutions, the second of which gives one channel 3000 times as large as the others,
    for which int8 has no more than one step then."""
    tf_keras.utils.set_random_seed(0)
    image = x = tf_keras.Input((16, 16, 3), name="image")
    for name in ("first", "harmed", "last"):
        x = tf_keras.layers.Conv2D(4, 3, padding="same", name=name)(x)
    model = tf_keras.Model(image, {"out": x})
    for name, channel, factor in (("harmed", np.s_[..., 0], 3000.0), ("last", np.s_[:, :, 0], 0.0)):
        layer = model.get_layer(name)
        kernel, bias = layer.get_weights()
        kernel[channel] *= factor
        layer.set_weights([kernel, bias])
    return model


def test_the_worst_layers_come_first(model):
    images = np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 3)).astype(np.float32)
    graph = convert(model, "int8", calibration_images=images)
    worst = worst_layers(convert(model), graph, images, count=2)
    # The large channel, which is the most of that tensor, is exact; what is made of the others not.
    assert worst[0]["tensor"] == "out"
    assert worst[0]["relative_error"] > 0.5
    assert worst[1]["relative_error"] < 0.1


def test_errors_are_relative_to_the_spread(model):
    images = np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 3)).astype(np.float32)
    graph = convert(model, "int8", calibration_images=images)
    exact, quantised = convert(model), graph
    (first,) = (
        layer for layer in worst_layers(exact, quantised, images, 9) if "first" in layer["tensor"]
    )
    # By Keras: the first layer's values, rounded to 256 steps between the least and the largest.
    values = tf_keras.Model(model.input, model.get_layer("first").output)(images).numpy()
    step = (values.max() - values.min()) / 255
    assert first["relative_error"] == pytest.approx(step / np.sqrt(12) / values.std(), rel=0.5)
    assert worst_layers(exact, exact, images)[0]["relative_error"] == 0

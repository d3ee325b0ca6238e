"""mnasdet/tflite/shared_biases.py: one convolution on two features of different scales."""

import numpy as np
import tf_keras

from mnasdet.tflite.convert import convert
from mnasdet.tflite.interpreter import TfliteModel


def test_a_shared_bias_is_right_on_both_features():
    """The bias is far larger than what the small feature adds to it."""
    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((8, 8, 3), name="image")
    shared = tf_keras.layers.Conv2D(4, 1, bias_initializer=tf_keras.initializers.Constant(5.0))
    model = tf_keras.Model(image, {"large": shared(image), "small": shared(image * 0.01)})
    images = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 3)).astype(np.float32)
    graph = convert(model, "int16x8", calibration_images=images)
    raw = TfliteModel(graph).predict(images)
    for name, expected in model.predict_on_batch(images).items():
        np.testing.assert_allclose(raw[name], expected, atol=0.02, err_msg=name)

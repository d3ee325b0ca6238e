"""mnasdet/tflite/picture_latency.py."""

import time

import numpy as np
import pytest
import tf_keras

from mnasdet.tflite.convert import convert
from mnasdet.tflite.latency.picture_latency import latencies_ms


@pytest.fixture(scope="module")
def graphs():
    """One convolution and ten of them, in float32 and for pixels."""

    def graph(count, input_type):
        image = tf_keras.Input((64, 64, 3), name="image")
        x = image
        for _ in range(count):
            x = tf_keras.layers.Conv2D(16, 3, padding="same")(x)
        return convert(tf_keras.Model(image, {"x": x}), input_type=input_type)

    return [graph(1, "float32"), graph(10, "uint8")]


def test_longer_graphs_take_longer(graphs):
    images = np.random.default_rng(0).uniform(-1, 1, (4, 64, 64, 3)).astype(np.float32)
    start = time.perf_counter()
    short, long = latencies_ms(graphs, images)
    assert 0 < 3 * short < long < 1000
    assert time.perf_counter() - start < 30


def test_pictures_of_another_size_are_refused(graphs):
    with pytest.raises(ValueError, match="(?i)dimension mismatch"):
        latencies_ms(graphs, np.zeros((1, 32, 64, 3), np.float32))

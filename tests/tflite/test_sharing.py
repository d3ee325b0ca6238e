"""mnasdet/tflite/sharing.py: a smaller file of the same graph."""

import numpy as np
import pytest
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from mnasdet.networks.builder import Builder
from mnasdet.networks.fake_quantization import observing
from mnasdet.networks.hyperparams import Initializer
from mnasdet.networks.keras_builder import keras_model
from mnasdet.tflite.convert import convert
from mnasdet.tflite.interpreter import TfliteModel
from mnasdet.tflite.sharing import share_vectors


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def plain(images):
    """An int8 graph as TensorFlow's own tools write it."""
    b = Builder()
    x = b.input((8, 8, 3))
    for layer in range(3):
        initializer = Initializer("normal", 0.3)
        x = b.conv2d(x, 64, 1, use_bias=True, initializer=initializer, name=f"conv_{layer}")
    model = keras_model({"y": x}, quantized=True)
    with observing():
        model(images, training=True)
    return bytes(
        flatbuffer_utils.convert_object_to_bytearray(
            flatbuffer_utils.convert_bytearray_to_object(convert(model, "int8"))
        )
    )


def test_vectors_of_zeros_are_written_once(plain):
    shared = share_vectors(plain)
    # Of three kernels and their biases, 64 zero points of 8 bytes each; one of six stays.
    assert len(plain) - len(shared) >= 5 * 64 * 8
    assert share_vectors(shared) == shared


def test_the_graph_is_the_same(plain, images):
    shared = share_vectors(plain)
    expected = TfliteModel(plain).predict(images)["y"]
    assert expected.std() > 0.01
    np.testing.assert_array_equal(TfliteModel(shared).predict(images)["y"], expected)


def test_weights_are_aligned(plain):
    shared = share_vectors(plain)
    model = schema.Model.GetRootAsModel(shared, 0)
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    starts = [
        buffer.DataAsNumpy().ctypes.data - np.frombuffer(shared, np.uint8).ctypes.data
        for buffer in buffers
        if buffer.DataLength()
    ]
    assert len(starts) >= 6
    assert all(start % 16 == 0 for start in starts)

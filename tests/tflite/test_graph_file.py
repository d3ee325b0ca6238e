"""mnasdet/tflite/graph_file.py: what is read and written stays the same graph."""

import io
import zipfile

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from tensorflow.lite.tools import flatbuffer_utils

from mnasdet.networks.builder import Builder
from mnasdet.networks.fake_quantization import observing
from mnasdet.networks.hyperparams import Initializer, Kernel
from mnasdet.networks.keras_builder import keras_model
from mnasdet.tflite import graph_file
from mnasdet.tflite.convert import convert
from mnasdet.tflite.interpreter import TfliteModel


def test_written_graph_computes_the_same(small_graph):
    written = graph_file.write(graph_file.read(small_graph))
    image = np.random.default_rng(0).uniform(-1, 1, (1, 96, 64, 3)).astype(np.float32)
    expected = TfliteModel(small_graph).predict(image)
    for name, values in TfliteModel(written).predict(image).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)
    assert graph_file.write(graph_file.read(written)) == written


def test_weights_lie_at_multiples_of_16_bytes(small_graph):
    """As the schema has it (force_align: 16): on a phone they are used where they lie."""
    written = graph_file.write(graph_file.read(small_graph))
    model = schema.Model.GetRootAs(written)
    places = []
    for i in range(model.BuffersLength()):
        table = model.Buffers(i)._tab
        field = table.Offset(4)
        if field and table.VectorLen(field):
            places.append(table.Vector(field))
    assert len(places) > 20
    assert not [place for place in places if place % 16]


def test_files_are_a_zip_file_behind_the_graph(small_graph):
    written = graph_file.write(graph_file.read(small_graph), {"a.txt": b"one\n", "b.txt": b"two"})
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == {
            "a.txt": b"one\n",
            "b.txt": b"two",
        }
        # Readers take the bytes as they lie there.
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    assert written == graph_file.write(
        graph_file.read(written), {"a.txt": b"one\n", "b.txt": b"two"}
    )


def test_vectors_of_zero_points_are_written_once():
    images = np.random.default_rng(0).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    b = Builder()
    x = b.input((8, 8, 3))
    for layer in range(3):
        initializer = Initializer("normal", 0.3)
        x = b.conv2d(x, 64, 1, use_bias=True, kernel=Kernel(initializer), name=f"conv_{layer}")
    model = keras_model({"y": x}, quantized=True)
    with observing():
        model(images, training=True)
    shared = convert(model, "int8")
    # As TensorFlow's own tools write it.
    plain = bytes(
        flatbuffer_utils.convert_object_to_bytearray(
            flatbuffer_utils.convert_bytearray_to_object(shared)
        )
    )
    # Three kernels and three biases have 64 zero points of 8 bytes each; one of six vectors stays.
    assert len(plain) - len(shared) >= 5 * 64 * 8
    assert graph_file.write(graph_file.read(plain)) == shared
    expected = TfliteModel(plain).predict(images)["y"]
    assert expected.std() > 0.01
    np.testing.assert_array_equal(TfliteModel(shared).predict(images)["y"], expected)

"""mnasdet/tflite/convert.py and interpreter.py: the graph says what Keras says."""

from collections import Counter

import numpy as np
import pytest

from mnasdet.errors import UserError
from mnasdet.networks.cost import cost_sheet
from mnasdet.tflite.convert import convert
from mnasdet.tflite.interpreter import TfliteModel, load
from mnasdet.tflite.layers import layers

# (96, 64) has 12x8 + 6x4 + 3x2 + 2x1 locations, with 9 anchors each.
NUM_ANCHORS = 9 * (96 + 24 + 6 + 2)

# What the TFLite schema calls a node's op.
TFLITE_OPS = {
    "conv2d": "CONV_2D",
    "depthwise_conv2d": "DEPTHWISE_CONV_2D",
    "add": "ADD",
    "max_pool": "MAX_POOL_2D",
    "upsample": "RESIZE_NEAREST_NEIGHBOR",
    "reshape": "RESHAPE",
    "concat": "CONCATENATION",
}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(-1, 1, (3, 96, 64, 3)).astype(np.float32)


def test_equals_keras_by_name(small_detector, small_graph, images):
    raw = TfliteModel(small_graph).predict(images)
    expected = small_detector.model.predict_on_batch(images)
    assert raw["box_encodings"].shape == (3, NUM_ANCHORS, 4)
    assert raw["class_predictions_with_background"].shape == (3, NUM_ANCHORS, 4)
    for name in expected:
        assert expected[name].std() > 0.01
        np.testing.assert_allclose(raw[name], expected[name], atol=1e-4)


def test_two_conversions_are_equal(small_detector, small_graph):
    assert convert(small_detector.model) == small_graph


@pytest.mark.parametrize(("quantization", "share"), [("fp16", 0.7), ("dynamic", 0.7)])
def test_quantised_weights_are_smaller_and_close(
    small_detector, small_graph, images, quantization, share
):
    graph = convert(small_detector.model, quantization)
    assert len(graph) < share * len(small_graph)
    raw = TfliteModel(graph).predict(images)
    expected = small_detector.model.predict_on_batch(images)
    for name in expected:
        error = np.abs(raw[name] - expected[name]).mean()
        assert 0 < error < 0.2 * expected[name].std()


def test_runtime_executes_the_layers_of_the_cost_sheet(small_network, small_graph):
    operations = load(small_graph, 1, "graph")._get_ops_details()
    executed = Counter(op["op_name"] for op in operations if op["op_name"] != "DELEGATE")
    expected = Counter(
        TFLITE_OPS[layer.node.op] for layer in layers(cost_sheet(small_network.outputs))
    )
    assert executed == expected


def test_wrong_image_size_names_both(small_graph):
    with pytest.raises(UserError, match=r"images \(1, 64, 64, 3\); \[batch, 96, 64, 3\] are"):
        TfliteModel(small_graph).predict(np.zeros((1, 64, 64, 3), np.float32))


def test_missing_and_broken_files(tmp_path, small_graph):
    with pytest.raises(UserError, match=r"none\.tflite: no such file"):
        TfliteModel(tmp_path / "none.tflite")
    text = tmp_path / "text.tflite"
    text.write_text("no graph at all")
    with pytest.raises(UserError, match=r"text\.tflite: not a TFLite file"):
        TfliteModel(text)
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(small_graph[:1000])
    with pytest.raises(UserError, match=r"cut\.tflite: the TFLite runtime cannot load it: The mo"):
        TfliteModel(cut)

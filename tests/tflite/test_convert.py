"""mnasdet/tflite/convert.py and interpreter.py: the graph says what Keras says."""

from collections import Counter

import numpy as np
import pytest
import tf_keras
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from mnasdet.errors import UserError
from mnasdet.networks.cost import cost_sheet
from mnasdet.tflite.convert import convert
from mnasdet.tflite.interpreter import TfliteModel, load
from mnasdet.tflite.latency.layers import layers

# (96, 64) has 12x8 + 6x4 + 3x2 + 2x1 locations, with 9 anchors each.
NUM_ANCHORS = 9 * (96 + 24 + 6 + 2)

# Names that the TFLite schema gives to a node's op.
TFLITE_OPS = {
    "conv2d": "CONV_2D",
    "depthwise_conv2d": "DEPTHWISE_CONV_2D",
    "add": "ADD",
    "max_pool": "MAX_POOL_2D",
    "upsample": "RESIZE_NEAREST_NEIGHBOR",
    "reshape": "RESHAPE",
    "concat": "CONCATENATION",
}


# Fields of an operation's details that list its tensors.
KEYS = ("inputs", "outputs")


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(-1, 1, (3, 96, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def int8_graph(small_detector, images):
    return convert(small_detector.model, "int8", calibration_images=images)


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


def computed(graph):
    """(operation, types of what it takes, of what it gives) of all operations; constants left
    out."""
    interpreter = Interpreter(
        model_content=graph,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    types = {x["index"]: np.dtype(x["dtype"]).name for x in interpreter.get_tensor_details()}
    operations = interpreter._get_ops_details()
    variable = {i for op in operations for i in op["outputs"]}
    variable |= {x["index"] for x in interpreter.get_input_details()}
    return [
        (op["op_name"], *(frozenset(types[i] for i in op[key] if i in variable) for key in KEYS))
        for op in operations
    ]


@pytest.mark.parametrize(("quantization", "integer"), [("int8", "int8"), ("int16x8", "int16")])
def test_integers_alone_are_computed_with(
    small_detector, int8_graph, images, quantization, integer
):
    graph = int8_graph
    if quantization != "int8":
        graph = convert(small_detector.model, quantization, calibration_images=images)
    operations = computed(graph)
    integers, floats = frozenset([integer]), frozenset(["float32"])
    inside = [operation for operation in operations if floats not in operation[1:]]
    assert operations[0] == ("QUANTIZE", floats, integers)
    assert [x for x in operations if x not in inside][1:] == [("DEQUANTIZE", integers, floats)] * 2
    assert {operation[1:] for operation in inside} == {(integers, integers)}
    assert {operation[0] for operation in inside} <= set(TFLITE_OPS.values()) | {"QUANTIZE"}
    raw = TfliteModel(graph).predict(images)
    for name, expected in small_detector.model.predict_on_batch(images).items():
        assert np.abs(raw[name] - expected).mean() < 0.1 * expected.std(), name


def test_weights_are_quantised_channel_by_channel(int8_graph):
    model = schema.Model.GetRootAs(int8_graph)
    subgraph = model.Subgraphs(0)
    kernels = 0
    for i in range(subgraph.OperatorsLength()):
        operator = subgraph.Operators(i)
        code = model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()
        if code in (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D):
            kernel = subgraph.Tensors(operator.Inputs(1))
            assert kernel.Type() == schema.TensorType.INT8
            channels = kernel.Shape(kernel.Quantization().QuantizedDimension())
            assert kernel.Quantization().ScaleLength() == channels
            kernels += 1
    assert kernels > 50


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_pixels_are_what_the_image_is(small_detector, images, quantization):
    """The least and the largest pixel occur in none of the images for calibration."""
    pixels = np.random.default_rng(2).integers(0, 256, (2, 96, 64, 3), np.uint8)
    normalised = pixels.astype(np.float32) * 2 / 255 - 1
    options = {"calibration_images": 0.8 * images}
    takes_pixels = convert(small_detector.model, quantization, input_type="uint8", **options)
    (detail,) = load(takes_pixels, 1, "graph").get_input_details()
    assert detail["dtype"] == np.uint8
    if quantization == "int8":
        assert detail["quantization"] == (pytest.approx(2 / 255), 127)
    raw = TfliteModel(takes_pixels).predict(normalised)
    for name, expected in small_detector.model.predict_on_batch(normalised).items():
        error = np.abs(raw[name] - expected).mean() / expected.std()
        assert error < {"none": 1e-5, "int8": 0.1}[quantization], name


def test_ranges_have_to_come_from_somewhere(small_detector):
    with pytest.raises(UserError, match="quantization int8 needs calibration images, or"):
        convert(small_detector.model, "int8")


def test_16_bits_take_no_pixels(small_detector, images):
    with pytest.raises(UserError, match="int16x8 takes images as float32; input_type is uint8"):
        convert(small_detector.model, "int16x8", calibration_images=images, input_type="uint8")


def test_a_model_that_was_trained_with_quantisation_has_its_own_ranges():
    """With the layers that tfmot puts into a model."""
    from tensorflow_model_optimization.python.core.quantization.keras import quantize

    tf_keras.utils.set_random_seed(0)
    image = tf_keras.Input((16, 16, 3), name="image")
    x = tf_keras.layers.Conv2D(8, 3, padding="same", name="conv")(image)
    x = tf_keras.layers.ReLU(6.0)(x)
    inner = quantize.quantize_model(tf_keras.Model(image, x))
    model = tf_keras.Model(image, {"out": inner(image)})
    images = np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 3)).astype(np.float32)
    for _ in range(200):  # Moving averages of the ranges.
        model(images, training=True)
    graph = convert(model, "int8")
    integers, floats = frozenset(["int8"]), frozenset(["float32"])
    assert computed(graph)[0] == ("QUANTIZE", floats, integers)
    assert computed(graph)[-1] == ("DEQUANTIZE", integers, floats)
    assert {operation[1:] for operation in computed(graph)[1:-1]} == {(integers, integers)}
    expected = model(images, training=False)["out"].numpy()
    raw = TfliteModel(graph).predict(images)["out"]
    step = np.diff(np.unique(raw)).min()
    assert expected.std() > 5 * step
    # Rounded to the other side, here and there.
    assert np.abs(raw - expected).max() < 1.01 * step
    assert np.abs(raw - expected).mean() < 0.05 * step
    # Images for calibration would give other ranges; they do not count.
    assert convert(model, "int8", calibration_images=images * 0.1) == graph


def test_runtime_executes_the_layers_of_the_cost_sheet(small_network, small_graph):
    operations = load(small_graph, 1, "graph")._get_ops_details()
    executed = Counter(op["op_name"] for op in operations if op["op_name"] != "DELEGATE")
    expected = Counter(
        TFLITE_OPS[layer.node.op] for layer in layers(cost_sheet(small_network.deployed.outputs))
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

"""mnasdet/tflite/layers.py and network_graph.py: what a network's layers are, by TFLite files."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from mnasdet import architectures, config
from mnasdet.models import network_of
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.hyperparams import Kernel
from mnasdet.networks.keras_builder import keras_model
from mnasdet.tflite.latency.layers import Layer, layers
from mnasdet.tflite.latency.network_graph import alone, network_graph
from tests.tflite import graph_keys


def in_file(layer):
    """The keys of what the converter makes of a layer: of all but a few one operator."""
    node, key = layer.node, layer.key
    if node.op == "batch_norm":
        shape = "x".join(map(str, node.shape))
        return [f"multiply {shape} constant", f"add {shape} constant"]
    if layer.activation == "hard_sigmoid":
        shape = "x".join(map(str, node.shape))
        return [key.replace("hard_sigmoid", "relu6"), f"multiply {shape} constant"]
    if key.startswith("hard_sigmoid "):
        shape = "x".join(map(str, node.shape))
        return [f"add {shape} constant relu6", f"multiply {shape} constant"]
    if key.startswith("swish "):
        shape = "x".join(map(str, node.shape))
        return [f"sigmoid {shape}", f"multiply {shape} {shape}"]
    if node.op == "group_norm":
        (height, width, channels), groups = node.shape, node.attrs["groups"]
        shape = f"{height}x{width}x{channels}"
        grouped, statistics = f"{height * width}x{groups}x{channels // groups}", f"1x{groups}x1"
        activation = "" if layer.activation == "linear" else f" {layer.activation}"
        return [
            f"reshape {shape}->{grouped}",
            f"global_avg_pool {grouped}",
            f"SQUARED_DIFFERENCE {grouped} {statistics}",
            f"global_avg_pool {grouped}",
            f"add {statistics} constant",
            f"RSQRT {statistics}",
            f"SUB {grouped} {statistics}",
            f"multiply {grouped} {statistics}",
            f"reshape {grouped}->{shape}",
            f"multiply {shape} constant",
            f"add {shape} constant{activation}",
        ]
    return [key]


def sheet_of(name):
    architecture = config.load_architecture(name)
    size = architectures.default_input_size(architecture)
    return cost_sheet(network_of(architecture, size, 90).outputs)


# Two stages are no TFLite files, and their time is not that of layers.
TFLITE_NAMES = [
    name
    for name in config.architecture_names()
    if not config.load_architecture(name).HasField("region_head")
]


def published_layers():
    return [layer for name in TFLITE_NAMES for layer in layers(sheet_of(name))]


def identity(layer):
    """All that a layer's time can depend on, without any names."""
    attrs = layer.node.attrs
    size = attrs.get("kernel_size", attrs.get("size"))
    axis = attrs["axis"] % len(layer.node.shape) if "axis" in attrs else None
    return (
        layer.node.op,
        attrs.get("function"),
        tuple(x.shape for x in layer.node.inputs),
        layer.node.shape,
        (size, size) if isinstance(size, int) else size,
        attrs.get("strides"),
        attrs.get("groups"),
        axis,
        layer.activation,
    )


def converted(outputs):
    """The TFLite converter's graph."""
    model = keras_model({f"output_{i}": node for i, node in enumerate(outputs)})
    # It leaves out a sum with the zeros that a normalisation begins with.
    rng = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    specs = [tf.TensorSpec((1, *x.shape[1:]), x.dtype) for x in model.inputs]
    traced = tf.function(lambda *images: model(list(images), training=False), autograph=False)
    frozen = convert_variables_to_constants_v2(traced.get_concrete_function(*specs))
    return tf.lite.TFLiteConverter([frozen]).convert()


def test_every_layer_that_is_published_has_a_key_of_its_own():
    by_key, by_identity = {}, {}
    for layer in published_layers():
        by_key.setdefault(layer.key, set()).add(identity(layer))
        by_identity.setdefault(identity(layer), set()).add(layer.key)
    assert len(by_key) == len(by_identity) > 900
    assert {len(identities) for identities in by_key.values()} == {1}
    assert {len(keys) for keys in by_identity.values()} == {1}


def test_every_kind_of_layer_that_is_published_converts_to_itself():
    """Tests the smallest layer of each kind: its size does not change its operators."""
    kinds = {}
    for layer in published_layers():
        op, function, inputs, output, *window = identity(layer)
        kind = (op, function, len(inputs), len(output), *window)
        cost = sum(x.shape[0] * x.channels for x in layer.node.inputs)
        kinds.setdefault(kind, []).append((cost, layer.key, layer))
    assert len(kinds) > 25
    for candidates in kinds.values():
        layer = min(candidates, key=lambda candidate: candidate[:2])[2]
        assert graph_keys.keys(converted([alone(layer)])) == in_file(layer)


def every_op():
    """A network of every op and activation that a TFLite file may have."""
    b = Builder()
    image = b.input((16, 12, 8))
    x = b.conv2d(image, 16, (1, 7), groups=4, kernel=Kernel(), name="grouped")
    x = b.batch_norm(x, momentum=0.9, epsilon=0.1, name="bn")
    for function in ("relu6", "hard_swish", "swish", "hard_sigmoid", "sigmoid", "relu"):
        x = b.activation(x, function, name=function)
    x = b.dropout(b.drop_block(x, 0.9, 3, name="drop_block"), 0.5, name="dropout")
    x = b.depthwise_conv2d(x, 5, strides=2, kernel=Kernel(), name="depthwise")
    x = b.activation(b.add(x, x, name="add"), "relu", name="add/relu")
    standardized = Kernel(standardized=True)
    x = b.conv2d(x, 16, 3, dilation=2, groups=2, kernel=standardized, name="dilated")
    x = b.activation(b.group_norm(x, groups=8, epsilon=0.1, name="gn"), "relu6", name="gn/relu6")
    x = b.depthwise_conv2d(x, 3, dilation=3, kernel=standardized, name="dilated_depthwise")
    x = b.group_norm(x, groups=2, epsilon=0.1, name="gn_linear")
    x = b.batch_norm(x, momentum=0.9, epsilon=0.1, name="alone")
    means = b.global_avg_pool(x, name="mean")
    gate = b.conv2d(means, 16, 1, use_bias=True, kernel=Kernel(), name="gate")
    gate = b.activation(gate, "hard_sigmoid", name="gate/hard_sigmoid")
    x = b.activation(b.multiply(x, gate, name="multiply"), "relu6", name="multiply/relu6")
    y = b.upsample(b.max_pool(x, 3, strides=2, name="max"), (8, 6), name="upsample")
    y = b.concat([b.avg_pool(x, 3, strides=1, name="avg"), y], axis=-1, name="channels")
    largest = b.activation(b.global_max_pool(y, name="maximum"), "sigmoid", name="largest")
    y = b.multiply(y, largest, name="product")
    flat = [b.reshape(y, (48, y.channels), name=f"flat{i}") for i in range(2)]
    return [b.concat(flat, name="places")]


def test_every_op_converts_to_itself():
    found = layers(cost_sheet(every_op()))
    for layer in found:
        assert graph_keys.keys(converted([alone(layer)])) == in_file(layer)
    ops = {layer.node.op for layer in found}
    # Guided anchoring runs in TensorFlow alone, a choice is made before a graph is exported, and a
    # dense layer is a 1x1 convolution.
    elsewhere = {"deformable_conv2d", "stop_gradient", "choice", "dense"}
    recorded = set(vars(Builder)) - {"scope", "input", "dropout", "drop_block"} - elsewhere
    assert ops == {name for name in recorded if not name.startswith("_")}


def keys_of_layers(outputs):
    return [key for layer in layers(cost_sheet(outputs)) for key in in_file(layer)]


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small_halved_ssdlite", "mobilenet_v2_mnasfpn", "resnet10_nas_fpn_3_256"]
)
def test_whole_networks_execute_their_layers(name):
    """The 1x1 level of the smallest image has its maximum for nothing."""
    architecture = config.load_architecture(name)
    pyramid = architecture.feature_pyramid
    architecture.depth_multiplier = 0.25
    stacked = getattr(pyramid, pyramid.WhichOneof("feature_pyramid_oneof"))
    if hasattr(stacked, "repeats"):
        stacked.repeats = 1
    outputs = network_of(architecture, (128, 128), 5).outputs
    assert Counter(graph_keys.keys(converted(outputs))) == Counter(keys_of_layers(outputs))


@pytest.mark.parametrize("name", TFLITE_NAMES)
def test_graph_to_be_timed_has_the_layers_in_order(name):
    (graph,) = sheet_of(name).graphs
    outputs = graph.outputs
    assert graph_keys.keys(network_graph(outputs)) == keys_of_layers(outputs)


def test_runtime_gives_the_graph_to_be_timed_the_shapes_of_the_network():
    """It works them out anew, from windows, strides and paddings."""
    outputs = every_op()
    model = Interpreter(model_content=network_graph(outputs))
    (image,) = model.get_input_details()
    model.resize_tensor_input(image["index"], image["shape"])
    model.allocate_tensors()
    model.set_tensor(image["index"], np.random.default_rng(0).random(image["shape"], np.float32))
    model.invoke()
    (output,) = model.get_output_details()
    values = model.get_tensor(output["index"])
    assert values.shape == (1, *outputs[0].shape)
    assert np.isfinite(values).all()
    assert values.std() > 0


def test_layer_of_a_single_place_has_no_maximum():
    b = Builder()
    x = b.input((1, 1, 8))
    x = b.activation(b.global_max_pool(x, name="maximum"), "sigmoid", name="sigmoid")
    assert [layer.key for layer in layers(cost_sheet([x]))] == ["sigmoid 1x1x8"]
    assert Layer(x).key == "sigmoid 1x1x8"

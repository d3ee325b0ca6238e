"""Detectors with other normalisers than batch normalisation, whole."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import config
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.models import network_of
from mnasdet.networks.builder import Builder, canonical_key, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.hyperparams import Kernel
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import hyperparams_pb2, image_resizer_pb2
from mnasdet.saved_model.server import Server
from mnasdet.tflite.convert import convert
from mnasdet.tflite.latency.layers import layers
from tests import harness

GROUP_NORM = "group_norm { groups: 8 } standardize_weights: true"
SYNC_BATCH_NORM = "sync_batch_norm { decay: 0.97 scale: true }"
BATCH_NORM = "batch_norm { decay: 0.97 scale: true }"


def architecture_with(normalizer):
    """MnasFPN's detector with one cell, a small backbone, and a short tower."""
    architecture = config.load_architecture("mobilenet_v2_mnasfpn")
    architecture.depth_multiplier = 0.5
    architecture.feature_pyramid.mnasfpn.repeats = 1
    for stride in (1, 2, 2, 2, 2):
        architecture.backbone.mnasnet.block.add(stride=stride, channels=32, expansion=3)
    hyperparams = text_format.Parse(
        f"activation: RELU_6 {normalizer}", hyperparams_pb2.Hyperparams()
    )
    predictor = architecture.box_predictor.weight_shared_convolutional_box_predictor
    predictor.num_layers_before_predictor = 1
    for part in (architecture.backbone, architecture.feature_pyramid, predictor):
        part.conv_hyperparams.CopyFrom(hyperparams)
    return architecture


@pytest.fixture(scope="module")
def network():
    return harness.build(architecture_with(GROUP_NORM))


def test_group_norm_stands_in_place_of_every_batch_norm(network):
    counted = []
    for outputs in (
        network.outputs,
        network_of(architecture_with(BATCH_NORM), (64, 96), 3).outputs,
    ):
        ops = [node.op for node in reachable(outputs)]
        counted.append((ops.count("group_norm"), ops.count("batch_norm")))
    (group_norms, none), (zero, batch_norms) = counted
    assert (none, zero) == (0, 0)
    assert group_norms == batch_norms > 30


def test_only_kernels_of_the_predictions_are_not_standardised(network):
    plain = {
        node.name
        for node in reachable(network.outputs)
        if "initializer" in node.attrs and "standardized" not in node.attrs
    }
    assert plain == {
        f"box_predictor/{part}/{kind}"
        for part in ("box", "class")
        for kind in ("depthwise", "pointwise")
    }


def test_group_norm_trains_and_is_exported(network):
    harness.check_weights(network)
    harness.check_multiply_adds(network)
    harness.check_training_step(network)
    harness.enliven(network)
    harness.check_tflite(network)


def test_the_export_holds_a_standardised_kernel_that_levels_share_once():
    b = Builder()
    x = b.input((8, 8, 64))
    outputs = {}
    for level in range(4):
        y = b.conv2d(x, 64, 3, kernel=Kernel(standardized=True), name="shared", shared=True)
        outputs[f"level_{level}"] = b.activation(y, "relu", name=f"level_{level}/relu")
        x = b.max_pool(x, 2, strides=2, name=f"level_{level}/pool")
    weights = 4 * 3 * 3 * 64 * 64
    assert weights < len(convert(keras_model(outputs))) < 1.1 * weights


def small_network(standardized):
    """A convolution that two levels share and a depthwise one, with group normalisation."""
    b = Builder()
    x = b.input((8, 8, 16))
    kernel = Kernel(standardized=standardized)
    outputs = {}
    for level in range(2):
        y = b.conv2d(x, 8, 3, kernel=kernel, name="shared", shared=True)
        y = b.group_norm(y, groups=4, epsilon=1e-6, name=f"level_{level}/norm")
        outputs[f"level_{level}"] = y
        x = b.depthwise_conv2d(x, 3, kernel=kernel, strides=2, name=f"level_{level}/half")
    return keras_model(outputs)


def test_a_tflite_file_has_no_operation_for_standardisation():
    graphs = [convert(small_network(standardized)) for standardized in (True, False)]
    standardized, plain = map(harness.operations_with_types, graphs)
    assert standardized == plain


def test_a_saved_model_holds_kernels_that_are_standardised_already(tmp_path):
    model = small_network(standardized=True)
    before = [variable.numpy() for variable in model.variables]
    resizer = text_format.Parse(
        "fixed_shape_resizer { height: 8 width: 8 }", image_resizer_pb2.ImageResizer()
    )
    # The network takes 16 channels, and pictures have 3.
    picked = tf.constant(np.random.default_rng(0).normal(size=(3, 16)), tf.float32)
    server = Server(
        ImageResizer.from_proto(resizer),
        model,
        lambda images, extents: model(images @ picked, training=False),
    )
    kernels = [v for v in server.weights if v.shape.rank == 4]
    # One that two levels share, and one depthwise: the second level's output is not read.
    assert sorted(tuple(v.shape) for v in kernels) == [(3, 3, 16, 1), (3, 3, 16, 8)]
    for kernel in kernels:
        axes = (0, 1, 2) if kernel.shape[-1] == 8 else (0, 1)
        np.testing.assert_allclose(np.mean(kernel, axes), 0, atol=1e-6)
        np.testing.assert_allclose(np.std(kernel, axes), 1, atol=1e-5)
    images = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), np.uint8)
    function = server.function("image_tensor").get_concrete_function()
    tf.saved_model.save(server, str(tmp_path), function)
    loaded = tf.saved_model.load(str(tmp_path))
    served = loaded.signatures["serving_default"](tf.constant(images))
    expected = model((tf.cast(images, tf.float32) * (2 / 255) - 1) @ picked, training=False)
    for name, output in expected.items():
        np.testing.assert_allclose(served[name], output, atol=1e-5)
    # Traced once more, the model standardises as before.
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_synchronised_network_is_the_plain_one_to_search_and_latency():
    plain, synchronized = (
        network_of(architecture_with(text), (64, 96), 3).outputs
        for text in (BATCH_NORM, SYNC_BATCH_NORM)
    )
    assert canonical_key(plain) == canonical_key(synchronized)
    sheets = [cost_sheet(outputs) for outputs in (plain, synchronized)]
    assert sheets[0].total == sheets[1].total
    assert sheets[0].parts == sheets[1].parts
    keys = [[layer.key for layer in layers(sheet)] for sheet in sheets]
    assert keys[0] == keys[1]
    marked = [node for node in reachable(synchronized) if node.attrs.get("synchronized")]
    assert len(marked) > 30

"""Detectors with other normalisers than batch normalisation, whole."""

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.models import network_of
from mnasdet.networks.builder import Builder, canonical_key, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.hyperparams import Kernel
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import hyperparams_pb2
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

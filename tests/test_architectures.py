"""Every published architecture, whole: shapes, costs, one training step, checkpoints, TFLite."""

import re

import numpy as np
import pytest
import tensorflow as tf

from mnasdet import config, models
from mnasdet.detectors.network import BOX_ENCODINGS, CLASS_LOGITS, detection_network
from mnasdet.networks.builder import reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.training import checkpoints
from tests import harness

# Larger networks have a quarter of their channels here: the converter takes almost forty bytes of
# memory for one of weights, and the layers are the same. Their published counts are compared with
# cost sheets in tests/backbones and tests/feature_pyramids.
MAX_PARAMS = 10_000_000

# They differ from resnet50_nas_fpn_7_256 by widths and repeats alone, and a step and a conversion
# of each takes a minute.
LIKE_ANOTHER = ("resnet50_nas_fpn_5_256", "resnet50_nas_fpn_7_384")

# SM-NAS's backbones differ by their codes alone, of which tests/backbones builds small ones.
SM_NAS = re.compile(r"sm_nas_e\d_backbone")

# Two stages are several models, with tests of their own in tests/detectors.
NAMES = [
    name
    for name in config.architecture_names()
    if not SM_NAS.fullmatch(name) and not config.load_architecture(name).HasField("region_head")
]
every_one = pytest.mark.parametrize("network", NAMES, indirect=True)
one_of_a_kind = pytest.mark.parametrize(
    "network", [name for name in NAMES if name not in LIKE_ANOTHER], indirect=True
)


@pytest.fixture(scope="module")
def network(request):
    architecture = config.load_architecture(request.param)
    whole = models.network_of(architecture, (256, 384), harness.NUM_CLASSES).outputs
    if cost_sheet(whole).total.params > MAX_PARAMS:
        architecture.depth_multiplier /= 4
        architecture.box_predictor.weight_shared_convolutional_box_predictor.depth //= 4
        if architecture.backbone.HasField("mobilenet_v2"):
            # It is small, and narrower layers, rounded to the same width, would be residual.
            architecture.backbone.mobilenet_v2.depth_multiplier *= 4
    built = harness.build(architecture)
    ops = [[node.op for node in reachable(outputs)] for outputs in (built.outputs, whole)]
    assert ops[0] == ops[1]
    return built


@every_one
def test_shapes(network):
    harness.check_shapes(network)


@every_one
def test_weights(network):
    harness.check_weights(network)


@every_one
def test_multiply_adds(network):
    harness.check_multiply_adds(network)


@one_of_a_kind
def test_training_step(network):
    harness.check_training_step(network)


@one_of_a_kind
def test_checkpoint_and_tflite(network):
    harness.enliven(network)
    harness.check_checkpoint(network)
    harness.check_tflite(network)


@pytest.fixture(scope="module")
def deep_architecture():
    architecture = config.load_architecture("mobilenet_v2_mnasfpn")
    architecture.feature_pyramid.mnasfpn.repeats = 3
    architecture.deep_supervision = True
    return architecture


@pytest.fixture(scope="module")
def deep_network(deep_architecture):
    network = harness.build(deep_architecture)
    network.pipeline.model.architecture.CopyFrom(deep_architecture)
    return network


def parts(names):
    """The cells and predictors that layers or weights of these names belong to."""
    scopes = {scope for name in names for scope in name.split("/")}
    return sorted(scope for scope in scopes if scope.startswith(("cell_", "exit_")))


def test_deep_supervision_predicts_behind_every_repeat(deep_network):
    names = checkpoints.variables_by_name(deep_network.model)
    assert parts(names) == ["cell_0", "cell_1", "cell_2", "exit_1", "exit_2", "exit_3"]
    anchors = len(deep_network.detector.anchors)
    shapes = {BOX_ENCODINGS: (None, anchors, 4), CLASS_LOGITS: (None, anchors, 4)}
    assert deep_network.model.output_shape == {**shapes, "earlier": [shapes, shapes]}
    # All predictors learn.
    harness.check_training_step(deep_network)


def test_an_exit_is_a_part_of_the_network_that_was_trained(deep_network, tmp_path):
    harness.enliven(deep_network)
    images = deep_network.images()
    trained = deep_network.model(images, training=False)
    weights = checkpoints.variables_by_name(deep_network.model)
    tf.train.Checkpoint(**{checkpoints.WEIGHTS: weights}).save(str(tmp_path / "ckpt"))
    first, second = trained["earlier"]
    for exit_, expected in ((1, first), (2, second), (3, trained)):
        detector = checkpoints.load_task(deep_network.pipeline, tmp_path, exit_)
        needed = [*(f"cell_{repeat}" for repeat in range(exit_)), f"exit_{exit_}"]
        assert parts(checkpoints.variables_by_name(detector.model)) == needed
        raw = detector.model(images, training=False)
        assert set(raw) == {BOX_ENCODINGS, CLASS_LOGITS}
        for name, output in raw.items():
            np.testing.assert_allclose(output, expected[name], atol=1e-5)


def test_an_exit_without_deep_supervision(deep_architecture):
    architecture = type(deep_architecture).FromString(deep_architecture.SerializeToString())
    architecture.deep_supervision = False
    architecture.exit = 1
    network = detection_network(architecture, (64, 64), harness.NUM_CLASSES)
    assert network.earlier == []
    outputs = network.deployed.outputs
    assert parts(node.name for node in reachable(outputs)) == ["cell_0"]

"""The supernet of MnasNet, alone and under a pyramid: every path computes what its network does."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet.blueprint import Subnets
from mnasdet.models import network_of
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces import factory
from mnasdet.supernets.shared_network import SharedNetwork

# At strides 4 to 32, SAME padding has a rest.
SIZE, NUM_CLASSES = (72, 40), 3

BACKBONE = """
  min_depth: 8
  backbone { mnasnet {
    stem_channels: 8 last_channels: 24
    block { channels: 8 repeats: 2 }
    block { channels: 16 stride: 2 }
    block { channels: 16 repeats: 2 stride: 2 expansion: 3 }
    block { channels: 16 stride: 2 }
    block { channels: 24 repeats: 2 stride: 2 se_ratio: 0.25 }
  } }
"""

# Every kind of choice; two widths of a block are equal to the one before, so that some inputs are
# pooled and not projected.
MNASNET = """
  searched_blocks: [{}] ops: [CONV, SEPARABLE, MBCONV] expansions: [2, 3] kernel_sizes: [3, 5]
  se_ratios: [0, 0.25] skips: [POOL, IDENTITY, NONE, AVERAGE_POOL]
  width_factors: [0.5, 1, 1.5] depth_offsets: [-1, 0]
"""

ANCHORS = "anchor_generator { ssd_anchor_generator { num_layers: %d } }"
SEPARABLE_PREDICTOR = """
  box_predictor { convolutional_box_predictor {
    use_depthwise: true kernel_size: 3 use_dropout: false conv_hyperparams { activation: RELU_6 batch_norm {} }
  } }
"""
MNASFPN = """
  feature_pyramid { mnasfpn {
    min_level: 3 max_level: 6 channels: 16 repeats: 1
    block { input: 0 input: 2 level: 3 expanded_channels: 8 }
    block { input: 1 input: 4 level: 4 expanded_channels: 16 }
    block { input: 2 input: 3 level: 5 expanded_channels: 8 }
    block { input: 3 input: 6 level: 6 expanded_channels: 8 }
  } }
"""
FPN = "feature_pyramid { fpn { min_level: 3 max_level: 6 channels: 16 %s } }"

# The rest of an architecture, and what is searched beside the backbone.
KINDS = {
    "classifier": ("classifier {}", ""),
    "last level": (ANCHORS % 1 + SEPARABLE_PREDICTOR, ""),
    "ssdlite": (
        "feature_pyramid { ssd_layers { channels: 16 } }" + ANCHORS % 3 + SEPARABLE_PREDICTOR,
        "",
    ),
    "retinanet": (FPN % "" + ANCHORS % 4 + SEPARABLE_PREDICTOR, ""),
    "fpnlite": (
        FPN % "variant: OBJECT_DETECTION_API separable: true" + ANCHORS % 4 + SEPARABLE_PREDICTOR,
        "",
    ),
    "mnasfpn": (MNASFPN + ANCHORS % 4 + SEPARABLE_PREDICTOR, ""),
    "joint": (
        MNASFPN + ANCHORS % 4 + SEPARABLE_PREDICTOR,
        "mnasfpn { channels: [8, 16] expanded_channels: [8, 16] kernel_sizes: [3, 5] repeats: 1 "
        "num_internal_blocks: 1 }",
    ),
}


def space_of(kind, searched, further=""):
    rest, pyramid = KINDS[kind]
    base = text_format.Parse(BACKBONE + rest, architecture_pb2.Architecture())
    mnasnet = f"mnasnet {{ {MNASNET.format(searched)} }}"
    text = f"joint {{ {mnasnet} {pyramid} }}" if pyramid else mnasnet
    config = text_format.Parse(f"{text} {further}", search_pb2.SearchSpaceConfig())
    return factory.from_config(config, base)


def drawn(space, count):
    """Networks that together have every choice of the space, and a generator."""
    rng = np.random.default_rng(3)
    return [space.decode(space.sample(rng)) for _ in range(count)], rng


def shared_network(space, rng, networks):
    """A supernet with random weights, also of its normalisations."""
    model = SharedNetwork(Subnets(tuple(networks)), SIZE, NUM_CLASSES)
    for weight in model.weights:
        noise = 0.2 * rng.normal(size=weight.shape).astype(np.float32)
        weight.assign(np.abs(weight + noise) if "variance" in weight.name else weight + noise)
    return model


def with_weights(architecture, weights):
    """The network by itself, and its variables by name."""
    (graph,) = network_of(architecture, SIZE, NUM_CLASSES)
    plain = keras_model(dict(graph.outputs))
    variables = {variable.name.removesuffix(":0"): variable for variable in plain.variables}
    # A pyramid has blocks that nothing reads.
    assert all(name.startswith("feature_pyramid") for name in weights.keys() - variables.keys())
    for name, variable in variables.items():
        variable.assign(weights[name])
    return plain, variables


def assert_equal_outputs(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("searched", ["", "4, 5"])
def test_a_path_computes_and_learns_as_its_network(kind, searched):
    space = space_of(kind, searched)
    networks, rng = drawn(space, 60)
    model = shared_network(space, rng, networks)
    images = tf.constant(rng.uniform(-1, 1, (3, *SIZE, 3)).astype(np.float32))
    for architecture in networks[:4]:
        path = tf.constant(model.path(architecture))
        plain, variables = with_weights(architecture, model.weights_of(architecture))
        for training in (False, True):
            assert_equal_outputs(
                model.of_path(images, path, training=training), plain(images, training=training)
            )
        moved = model.weights_of(architecture)
        for name, variable in variables.items():
            np.testing.assert_allclose(moved[name], variable, atol=1e-4, rtol=1e-4, err_msg=name)

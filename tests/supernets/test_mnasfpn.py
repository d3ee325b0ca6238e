"""The supernet of MnasFPN: every path computes what its network computes."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import config, models
from mnasdet.feature_pyramids.factory import pyramid_features
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.features import BackboneFeatures
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2
from mnasdet.search import one_shot
from mnasdet.supernets import elastic
from mnasdet.supernets.judge import Judge
from mnasdet.supernets.mnasfpn import MnasFpnSupernet

# Features of an image of 80 x 48 at strides 8 and 16: at stride 32 SAME padding has a rest.
SIZE, WIDTHS = (80, 48), (8, 12)

# The first has the widest of all, a gate, a dead block, and three features that are added; the
# second a width of which the backbone's first feature has as many channels: a residual.
CELLS = (
    """
    min_level: 3 max_level: 5 channels: 16 repeats: {} size_dependent_ordering: {}
    block {{ input: 0 input: 2 level: 5 expanded_channels: 24 kernel_size: 3 }}
    block {{ input: 0 input: 1 level: 4 expanded_channels: 16 kernel_size: 5
      merge: SQUEEZE_EXCITE }}
    block {{ input: 1 input: 4 level: 3 expanded_channels: 24 kernel_size: 3 }}
    block {{ input: 0 input: 2 input: 5 level: 5 expanded_channels: 8 kernel_size: 5 }}
    block {{ input: 4 input: 5 level: 4 expanded_channels: 16 kernel_size: 3
      merge: SQUEEZE_EXCITE }}
    """,
    """
    min_level: 3 max_level: 5 channels: 8 repeats: 1 size_dependent_ordering: {}
    block {{ input: 1 input: 2 level: 3 expanded_channels: 8 kernel_size: 5
      merge: SQUEEZE_EXCITE }}
    block {{ input: 0 input: 3 level: 5 expanded_channels: 16 kernel_size: 3 }}
    block {{ input: 2 input: 4 level: 4 expanded_channels: 16 kernel_size: 3 }}
    block {{ input: 0 input: 1 level: 3 expanded_channels: 24 kernel_size: 5 }}
    block {{ input: 4 input: 5 level: 5 expanded_channels: 24 kernel_size: 3 }}
    """,
)


def architectures(size_dependent_ordering, repeats):
    ordering = str(size_dependent_ordering).lower()
    return [
        architecture_pb2.Architecture(
            feature_pyramid=architecture_pb2.FeaturePyramid(
                mnasfpn=text_format.Parse(cell.format(*numbers), architecture_pb2.MnasFpn())
            )
        )
        for cell, numbers in zip(CELLS, ((repeats, ordering), (ordering,)), strict=True)
    ]


def plain_network(architecture):
    b = Builder()
    levels = [b.input((10, 6, 8), "level_3"), b.input((5, 3, 12), "level_4")]
    features = BackboneFeatures(dict(zip((3, 4), levels, strict=True)), levels[-1])
    return keras_model(pyramid_features(b, features, architecture.feature_pyramid)[-1])


@pytest.mark.parametrize(
    ("ordering", "repeats", "modes"), [(True, 2, (False, True)), (False, 1, [False])]
)
def test_a_path_computes_and_learns_as_its_network(ordering, repeats, modes):
    both = architectures(ordering, repeats)
    supernet = MnasFpnSupernet(both, WIDTHS)
    rng = np.random.default_rng(0)
    for weight in supernet.weights:
        noise = rng.normal(size=weight.shape).astype(np.float32)
        weight.assign(np.abs(weight + 0.2 * noise) if "variance" in weight.name else weight + noise)
    inputs = [
        tf.constant(rng.normal(size=shape).astype(np.float32))
        for shape in ((3, 10, 6, 8), (3, 5, 3, 12))
    ]
    run = tf.function(lambda path, training: supernet([*inputs, path], training=training))
    for architecture in both:
        channels = architecture.feature_pyramid.mnasfpn.channels
        path = tf.constant(supernet.format.path(architecture))
        plain = plain_network(architecture)
        start = supernet.weights_of(architecture, WIDTHS)
        variables = {variable.name.removesuffix(":0"): variable for variable in plain.variables}
        assert start.keys() >= variables.keys()
        for name, variable in variables.items():
            variable.assign(start[name])
        for training in modes:
            expected = plain({"level_3": inputs[0], "level_4": inputs[1]}, training=training)
            for found, output in zip(run(path, training), expected, strict=True):
                np.testing.assert_allclose(found[..., :channels], output, atol=1e-5, rtol=1e-5)
                assert not np.any(found[..., channels:])
        moved = supernet.weights_of(architecture, WIDTHS)
        for name, variable in variables.items():
            np.testing.assert_allclose(moved[name], variable, atol=1e-5)


@pytest.mark.parametrize("strides", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (10, 11)])
def test_a_pool_whose_stride_is_known_late_is_keras_own(strides, size):
    x = tf.random.stateless_normal((2, *size, 3), (1, 2))
    expected = x if strides == 1 else tf.nn.max_pool2d(x, 3, strides, "SAME")
    np.testing.assert_array_equal(elastic.max_pool(x, tf.constant(strides)), expected)


@pytest.fixture(scope="module")
def shared(tiny_config, tmp_path_factory):
    """A supernet of the tiny search's space as a task, with its config."""
    path = tmp_path_factory.mktemp("shared") / "tiny.config"
    path.write_text(tiny_config)
    pipeline = config.load(path)
    pipeline.search_config.one_shot.num_networks = 6
    return pipeline, models.build(one_shot.supernet(pipeline))


def test_the_first_two_networks_are_the_smallest_and_the_largest(shared):
    pipeline, task = shared
    costs = [
        cost_sheet(models.network(config.resolve(pipeline, each))).total.multiply_adds
        for each in task.blueprint.subnets.architectures
    ]
    assert costs[0] == min(costs)
    assert costs[1] == max(costs)


def test_a_judged_network_has_the_statistics_of_its_own(shared):
    pipeline, task = shared
    rng = np.random.default_rng(1)
    images = [tf.constant(rng.uniform(-1, 1, (4, 64, 64, 3)).astype(np.float32)) for _ in range(2)]
    architecture = task.blueprint.subnets.architectures[3]
    found = Judge(task, pipeline, images).metrics(architecture)
    assert 0 <= found["DetectionBoxes_Precision/mAP"] <= 1
    # The plain network, run in training on both batches, gives the statistics by its own averages.
    plain = models.build(config.resolve(pipeline, architecture)).model
    weights = task.model.weights_of(architecture)
    norms = [layer for layer in plain.layers if type(layer).__name__ == "BatchNormalization"]
    statistics = []
    for batch in images:
        for variable in plain.variables:
            variable.assign(weights[variable.name.removesuffix(":0")])
        before = [layer.moving_mean.numpy() for layer in norms]
        plain(batch, training=True)
        statistics.append(
            [
                (layer.moving_mean.numpy() - layer.momentum * old) / (1 - layer.momentum)
                for layer, old in zip(norms, before, strict=True)
            ]
        )
    for layer, first, second in zip(norms, *statistics, strict=True):
        own = weights[layer.moving_mean.name.removesuffix(":0")]
        np.testing.assert_allclose(own, (first + second) / 2, atol=1e-4, rtol=1e-3)

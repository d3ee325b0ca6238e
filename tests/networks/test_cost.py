"""Cost sheets against hand counts, Keras and TensorFlow's profiler."""

import numpy as np
import pytest

from mnasdet import config
from mnasdet.backbones.resnet import resnet
from mnasdet.models import network_of
from mnasdet.networks.builder import Builder, canonical_key
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.graph import Graph, Network
from mnasdet.networks.hyperparams import Kernel
from tests import harness
from tests.search_spaces.architectures import mnasfpn_space


def test_one_separable_block_by_hand():
    b = Builder()
    x = b.input((8, 6, 3))
    with b.scope("backbone"):
        y = b.conv2d(x, 16, 3, strides=2, kernel=Kernel(), name="conv")
        y = b.batch_norm(y, momentum=0.9, epsilon=1e-3, name="batch_norm")
    with b.scope("box_predictor"):
        z = b.depthwise_conv2d(y, 5, kernel=Kernel(), name="depthwise")
        z = b.conv2d(z, 4, 1, use_bias=True, kernel=Kernel(), name="pointwise")
    sheet = cost_sheet([z])
    assert sheet.parts["backbone"].params == 3 * 3 * 3 * 16 + 4 * 16
    assert sheet.parts["backbone"].trainable_params == 3 * 3 * 3 * 16 + 2 * 16
    assert sheet.parts["backbone"].multiply_adds == 4 * 3 * 16 * 27
    assert sheet.parts["box_predictor"].params == 25 * 16 + 16 * 4 + 4
    assert sheet.parts["box_predictor"].multiply_adds == 12 * (16 * 25 + 16 * 4)
    # conv: 48 weights x 9, reads 8*6*3, writes 4*3*16, four bytes each.
    (graph,) = sheet.graphs
    assert graph.costs[0].memory_bytes == 4 * (432 + 144 + 192)


def test_operations_are_multiply_adds_and_the_work_beside_them():
    b = Builder()
    x = b.conv2d(b.input((8, 6, 3)), 16, 3, kernel=Kernel(), name="conv")
    y = b.batch_norm(x, momentum=0.9, epsilon=1e-3, name="batch_norm")
    y = b.activation(b.add(x, y, name="add"), "relu", name="relu")
    y = b.max_pool(y, 3, strides=2, name="pool")
    cost = cost_sheet([b.multiply(y, b.global_avg_pool(y, name="mean"), name="gated")]).total
    values, pooled = 8 * 6 * 16, 4 * 3 * 16
    assert cost.multiply_adds == 27 * values
    assert cost.operations == (27 + 4 + 1 + 1) * values + 2 * pooled


# SM-NAS, tables 2 and 7: G of backbones at images of a multiple of 32 pixels.
@pytest.mark.parametrize(
    ("depth", "groups", "size", "operations"),
    [
        (18, 1, (512, 512), 9.54e9),
        (34, 1, (608, 800), 35.68e9),
        (101, 1, (608, 800), 76.34e9),
        (101, 32, (608, 800), 78.16e9),
        (101, 32, (800, 1344), 172.78e9),
    ],
)
def test_operations_of_the_residual_networks_that_sm_nas_prints(depth, groups, size, operations):
    b = Builder()
    width = 4 if groups > 1 else 64
    features = resnet(b, b.input((*size, 3)), depth=depth, groups=groups, width_per_group=width)
    assert cost_sheet([features.last]).total.operations == pytest.approx(operations, abs=11e6)


def test_group_norm_has_a_factor_and_an_offset_and_no_averages():
    b = Builder()
    x = b.group_norm(b.input((8, 6, 16)), groups=4, epsilon=0.1, name="x")
    cost = cost_sheet([x]).total
    assert (cost.params, cost.trainable_params, cost.multiply_adds) == (32, 32, 0)
    assert cost.memory_bytes == 4 * (2 * 8 * 6 * 16 + 32)


def test_dilation_and_standardised_kernels_cost_nothing():
    def cost(**arguments):
        b = Builder()
        x = b.conv2d(b.input((8, 6, 16)), 4, 3, name="conv", **arguments)
        return cost_sheet([b.depthwise_conv2d(x, 3, name="depthwise", **arguments)]).total

    assert cost(kernel=Kernel(standardized=True), dilation=2) == cost(kernel=Kernel())


def test_a_shared_layer_weighs_once_and_works_twice():
    b = Builder()
    sizes = [8, 4]
    outputs = [
        b.conv2d(
            b.input((size, size, 3), f"in_{size}"),
            2,
            1,
            kernel=Kernel(),
            name="conv",
            shared=True,
        )
        for size in sizes
    ]
    total = cost_sheet(outputs).total
    assert total.params == 6
    assert total.multiply_adds == 6 * (64 + 16)


def test_graphs_add_as_often_as_they_run():
    def one_layer(channels, name):
        b = Builder()
        return b.conv2d(b.input((8, 6, 3)), channels, 1, kernel=Kernel(), name=name)

    features, head = one_layer(4, "features"), one_layer(2, "head")
    network = Network(
        {"features": Graph({"x": features}), "head": Graph({"boxes": head}, times=1000)}
    )
    sheet = cost_sheet(network)
    # Weights are there once; 48 places, 3 channels in, and as many multiply-adds as weights each.
    assert sheet.total.params == sheet.total.trainable_params == 3 * 4 + 3 * 2
    assert sheet.total.multiply_adds == 48 * 12 + 1000 * 48 * 6
    assert sheet.total.memory_bytes == 4 * (12 + 48 * 7) + 1000 * 4 * (6 + 48 * 5)
    assert sheet.parts["head"].multiply_adds == 1000 * 48 * 6
    assert sheet.runs == 1001
    # A graph that runs once costs what its nodes cost, and has their key.
    once = Network({"detector": Graph({"x": features})})
    assert cost_sheet(once).total == cost_sheet([features]).total == (12, 12, 576, 1392, 576)
    assert once.key() == canonical_key([features])
    keys = {
        Network({"a": Graph({"x": features}), "b": Graph({"x": head}, times=times)}).key()
        for times in (1, 1000)
    }
    assert len(keys) == 2


def test_layers_of_one_name_have_one_set_of_weights():
    graphs = {}
    for name in ("first", "second"):
        b = Builder()
        x = b.conv2d(b.input((4, 4, 3)), 2, 1, kernel=Kernel(), name="shared")
        graphs[name] = Graph({"x": x})
    total = cost_sheet(Network(graphs)).total
    assert (total.params, total.multiply_adds) == (6, 2 * 16 * 6)


# All were counted from the layer tables of the papers and their code, apart from this code. Where
# what is printed differs by more than its last digit, a comment says so. Of NAS-FPN's operations,
# two are a multiply-add.
PUBLISHED = [
    # MnasFPN, table 1, whose weights are all of them, with the moving averages.
    ("mobilenet_v2_mnasfpn", 320, {"params": 2.503e6, "multiply_adds": 0.919e9}),
    ("mobilenet_v3_large_mnasfpn", 320, {"params": 3.455e6, "multiply_adds": 0.767e9}),
    # Printed: 1.29 M and 0.53 B; no width of the predictor gives both.
    ("mobilenet_v2_0.7_mnasfpn", 320, {"params": 1.271e6, "multiply_adds": 0.525e9}),
    # MnasNet, tables 1 and 2.
    ("mnasnet_a1", 224, {"trainable_params": 3.887e6, "multiply_adds": 311.6e6}),
    ("mnasnet_b1", 224, {"trainable_params": 4.383e6, "multiply_adds": 314.4e6}),
    # The stem's 8 channels go into its first block. tensorflow/tpu writes 16 there, but builds
    # nothing of them; they would make 70.0 M of the 68 M that are published.
    ("mnasnet_small", 224, {"trainable_params": 2.030e6, "multiply_adds": 68.3e6}),
    # MnasNet, table 3.
    ("mnasnet_a1_ssdlite", 320, {"trainable_params": 4.912e6, "multiply_adds": 0.838e9}),
    # MnasFPN, table 1, which has 4.97 M and 0.62 B, 3.22 M and 0.51 B, 4.3 M and 0.8 B.
    ("mobilenet_v3_large_ssdlite", 320, {"trainable_params": 5.007e6, "multiply_adds": 0.613e9}),
    (
        "mobilenet_v3_large_halved_ssdlite",
        320,
        {"trainable_params": 3.248e6, "multiply_adds": 0.507e9},
    ),
    ("mobilenet_v2_ssdlite", 320, {"trainable_params": 4.50e6, "multiply_adds": 0.804e9}),
    # NAS-FPN, table 1 and section 4.3.
    ("mobilenet_v2_fpnlite_64", 320, {"trainable_params": 2.016e6, "multiply_adds": 0.755e9}),
    ("mobilenet_v2_fpnlite_128", 320, {"trainable_params": 2.203e6, "multiply_adds": 1.017e9}),
    ("mobilenet_v2_nas_fpn_3_256", 640, {"multiply_adds": 80e9}),
    ("resnet50_fpn_256", 640, {"trainable_params": 34.0e6, "multiply_adds": 96.8e9}),
    ("resnet50_nas_fpn_5_256", 640, {"trainable_params": 51.81e6, "multiply_adds": 126.4e9}),
    ("resnet50_nas_fpn_7_256", 640, {"trainable_params": 60.1e6, "multiply_adds": 140.3e9}),
    ("resnet50_nas_fpn_7_256", 1024, {"multiply_adds": 359e9}),
    ("resnet50_nas_fpn_7_256", 1280, {"multiply_adds": 562e9}),
    ("resnet50_nas_fpn_7_384", 1280, {"trainable_params": 103.6e6, "multiply_adds": 1043e9}),
]


@pytest.mark.parametrize(("name", "side", "published"), PUBLISHED)
def test_the_published_figures(name, side, published):
    architecture = config.load_architecture(name)
    num_classes = 1000 if architecture.HasField("classifier") else 90
    total = cost_sheet(network_of(architecture, (side, side), num_classes).outputs).total
    for cost, figure in published.items():
        assert getattr(total, cost) == pytest.approx(figure, rel=0.005), cost


def test_a_published_figure_to_the_last_weight():
    outputs = network_of(config.load_architecture("mobilenet_v2_mnasfpn"), (320, 320), 90).outputs
    assert cost_sheet(outputs).total.params == 2_503_047


@pytest.mark.parametrize("seed", range(3))
def test_samples_of_the_search_space_cost_what_keras_and_the_profiler_count(seed):
    space = mnasfpn_space(config.load_architecture("mobilenet_v2_mnasfpn"))
    network = harness.build(space.decode(space.sample(np.random.default_rng(seed))))
    harness.check_weights(network)
    harness.check_multiply_adds(network)

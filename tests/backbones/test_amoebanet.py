"""AmoebaNet-D: counts, the plan of cells, a cell's order of operations."""

import numpy as np
import pytest

from mnasdet import config
from mnasdet.backbones.amoebanet import amoebanet_d, from_proto
from mnasdet.heads.classifier import classifier
from mnasdet.models import network_of
from mnasdet.networks.builder import Builder, canonical_key, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2


def backbone(image_size=(64, 64), **arguments):
    b = Builder()
    return amoebanet_d(b, b.input((*image_size, 3)), **arguments)


def by_name(*outputs):
    return {node.name: node for node in reachable(outputs)}


@pytest.mark.parametrize(
    ("num_cells", "filters", "params"),
    # Huang et al., "GPipe", 2019, table 1. Theirs have an auxiliary classifier, about 0.8 M more.
    [(18, 208, 82e6), (18, 416, 318e6), (18, 544, 542e6), (36, 544, 1.05e9)],
)
def test_counts_of_the_classifiers(num_cells, filters, params):
    b = Builder()
    features = amoebanet_d(b, b.input((64, 64, 3)), num_cells=num_cells, filters=filters)
    total = cost_sheet([classifier(b, features.last, num_classes=1000)]).total
    assert total.trainable_params == pytest.approx(params, rel=0.012)


def detector(architecture_name):
    """NAS-FPN's detector with the backbone that its authors are likely to have had."""
    architecture = config.load_architecture(architecture_name)
    architecture.backbone.Clear()
    architecture.backbone.amoebanet_d.num_cells = 24
    architecture.backbone.amoebanet_d.filters = 208
    return cost_sheet(network_of(architecture, (1280, 1280), 90).outputs).total


def test_counts_of_nas_fpns_detectors():
    """Ghiasi et al., table 1; two operations are a multiply-add."""
    fpn = detector("resnet50_fpn_256")
    assert fpn.trainable_params == pytest.approx(114.4e6, rel=0.005)
    assert 2 * fpn.multiply_adds == pytest.approx(1311e9, rel=0.001)
    nas_fpn = detector("resnet50_nas_fpn_7_384")
    assert 2 * nas_fpn.multiply_adds == pytest.approx(2633e9, rel=0.005)
    # Printed: 166.5 M. The pyramid alone adds 69.9 M to ResNet-50's row with FPN, 34.0 M.
    assert nas_fpn.trainable_params == pytest.approx(114.4e6 + (103.9e6 - 34.0e6), rel=0.005)


def test_levels_at_an_odd_size():
    features = backbone((321, 300), num_cells=3, filters=32)
    assert [node.shape for node in features.from_level(2)] == [
        (81, 75, 3 * 8),
        (41, 38, 4 * 32),
        (21, 19, 4 * 64),
        (11, 10, 4 * 128),
    ]
    assert features.last.name == "relu"
    assert features.expansion is None


def test_cells_in_three_groups():
    names = by_name(backbone(num_cells=18, filters=16).last)
    cells = list(dict.fromkeys(name.split("/")[0] for name in names if "/state_" in name))
    assert cells == [
        "stem_cell_1",
        "stem_cell_2",
        *(f"cell_{index}" for index in range(1, 7)),
        "reduction_cell_1",
        *(f"cell_{index}" for index in range(7, 13)),
        "reduction_cell_2",
        *(f"cell_{index}" for index in range(13, 19)),
    ]


def test_a_normal_cell():
    features = backbone(num_cells=3, filters=32)
    nodes = by_name(features.last)
    concat = nodes["cell_2/concat"]
    assert [node.name for node in concat.inputs] == [
        "cell_2/input/batch_norm",
        "cell_2/state_3/add",
        "cell_2/state_4/add",
        "cell_2/state_6/add",
    ]
    # State 4: a 1x1 convolution and a bottleneck of 1x7 and 7x1, both on the cell's input.
    convolutions = [
        (name.removeprefix("cell_2/state_4/"), node.attrs["kernel_size"], node.channels)
        for name, node in nodes.items()
        if name.startswith("cell_2/state_4/") and node.op == "conv2d"
    ]
    assert convolutions == [
        ("operation_0/conv", 1, 64),
        ("operation_1/reduce/conv", 1, 16),
        ("operation_1/layer_1/conv", (1, 7), 16),
        ("operation_1/layer_2/conv", (7, 1), 16),
        ("operation_1/expand/conv", 1, 64),
    ]
    # Every convolution reads what a ReLU gives.
    assert all(
        node.inputs[0].attrs["function"] == "relu"
        for name, node in nodes.items()
        if name.startswith("cell_2/state_") and node.op == "conv2d"
    )


def test_a_reduction_cell_strides_only_on_what_it_is_given():
    nodes = by_name(backbone(num_cells=3, filters=32).last)
    strided = [
        name.removeprefix("reduction_cell_1/")
        for name, node in nodes.items()
        if name.startswith("reduction_cell_1/") and node.attrs.get("strides", 1) == 2
    ]
    assert sorted(strided) == [
        "state_2/operation_0/max_pool",
        "state_2/operation_1/max_pool",
        "state_3/operation_1/layer_1/conv",
        "state_5/operation_1/max_pool",
    ]
    assert [node.name.split("/")[1] for node in nodes["reduction_cell_1/concat"].inputs] == [
        "state_4",
        "state_5",
        "state_6",
    ]


def test_the_previous_output_is_matched_only_where_it_has_to_be():
    nodes = by_name(backbone(num_cells=6, filters=32).last)
    # One group: cell 1 follows a reduction, cell 2 gets the 3/4 F of the stem.
    assert "cell_1/previous/avg_pool" in nodes
    assert "cell_2/previous/avg_pool" not in nodes
    assert "cell_2/previous/conv" in nodes
    # The first cell of all takes the stem twice.
    assert not any(name.startswith("stem_cell_1/previous") for name in nodes)


def test_from_proto_and_depth_multiplier():
    b = Builder()
    proto = architecture_pb2.AmoebaNetD(num_cells=3, filters=64)
    features = from_proto(b, b.input((64, 64, 3)), proto, depth_multiplier=0.6, min_depth=16)
    # 64 * 0.6 = 38.4 and 32 * 0.6 = 19.2, in multiples of 16 and of 8.
    assert features.levels[3].channels == 4 * 48
    assert by_name(features.last)["stem/conv"].channels == 24
    plain = from_proto(Builder(), b.input((64, 64, 3)), proto)
    expected = backbone(num_cells=3, filters=64)
    assert canonical_key([plain.last]) == canonical_key([expected.last])


def test_keras_has_the_weights_of_the_cost_sheet():
    features = backbone((33, 40), num_cells=3, filters=16)
    model = keras_model({"last": features.last})
    assert model.count_params() == cost_sheet([features.last]).total.params
    assert model(np.zeros((1, 33, 40, 3), np.float32))["last"].shape == (1, 2, 2, 256)

"""SSD's extra layers: shapes, widths, the order of operations."""

from pathlib import Path

import pytest

from mnasdet import text_proto
from mnasdet.detectors.network import detection_network
from mnasdet.feature_pyramids.ssd_layers import from_proto, ssd_layers
from mnasdet.networks.builder import Builder, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.features import BackboneFeatures
from mnasdet.networks.hyperparams import Hyperparams
from mnasdet.protos import architecture_pb2

ROOT = Path(__file__).parents[2]


def pyramid(finest=20, **arguments):
    b = Builder()
    coarser = -(-finest // 2)
    taps = b.input((finest, finest, 32), "expansion"), b.input((coarser, coarser, 64), "last")
    with b.scope("feature_pyramid"):
        return ssd_layers(b, *taps, **arguments)


@pytest.mark.parametrize(
    ("finest", "sides"), [(20, [20, 10, 5, 3, 2, 1]), (19, [19, 10, 5, 3, 2, 1])]
)
def test_shapes_at_320_and_at_300(finest, sides):
    channels = [32, 64, 512, 256, 256, 128]
    expected = [(side, side, depth) for side, depth in zip(sides, channels, strict=True)]
    assert [node.shape for node in pyramid(finest)] == expected


def test_odd_sides_that_differ():
    b = Builder()
    features = ssd_layers(b, b.input((9, 21, 8), "expansion"), b.input((5, 11, 8), "last"))
    assert [node.size for node in features] == [(9, 21), (5, 11), (3, 6), (2, 3), (1, 2), (1, 1)]


def test_the_taps_are_handed_on():
    assert [node.op for node in pyramid()[:2]] == ["input", "input"]


@pytest.mark.parametrize(
    ("separable", "expected"),
    [
        (
            True,
            [
                *("reduce/conv", "reduce/batch_norm", "reduce/relu6"),
                *("depthwise/depthwise", "depthwise/batch_norm", "depthwise/relu6"),
                *("pointwise/conv", "pointwise/batch_norm", "pointwise/relu6"),
            ],
        ),
        (
            False,
            [
                *("reduce/conv", "reduce/batch_norm", "reduce/relu6"),
                *("conv/conv", "conv/batch_norm", "conv/relu6"),
            ],
        ),
    ],
)
def test_order_of_operations(separable, expected):
    names = [node.name for node in reachable(pyramid(separable=separable))]
    assert [name.split("extra_0/")[1] for name in names if "extra_0/" in name] == expected


def test_counts_by_hand():
    # One layer of 6 channels behind 10x10x64: 1x1 to 3 channels, then down to 5x5.
    separable = cost_sheet(pyramid(channels=[6], min_depth=1)).total
    assert separable.trainable_params == 64 * 3 + 2 * 3 + 9 * 3 + 2 * 3 + 3 * 6 + 2 * 6
    assert separable.multiply_adds == 100 * 64 * 3 + 25 * (9 * 3 + 3 * 6)
    full = cost_sheet(pyramid(channels=[6], min_depth=1, separable=False)).total
    assert full.trainable_params == 64 * 3 + 2 * 3 + 9 * 3 * 6 + 2 * 6
    assert full.multiply_adds == 100 * 64 * 3 + 25 * 9 * 3 * 6


def test_widths_with_a_multiplier_are_cut_off_and_not_below_the_minimum():
    features = pyramid(channels=[512, 90, 24], depth_multiplier=0.35, min_depth=16)
    # 179.2, 31.5 and 8.4; half of them 89.6, 15.75 and 4.2.
    assert [node.channels for node in features[2:]] == [179, 31, 16]
    reduced = [node for node in reachable(features) if node.name.endswith("reduce/conv")]
    assert [node.channels for node in reduced] == [89, 16, 16]


def test_without_batch_normalisation_there_are_biases():
    nodes = reachable(pyramid(hyperparams=Hyperparams(normalizer=None, activation="relu")))
    assert not [node for node in nodes if node.op == "batch_norm"]
    convolutions = [node for node in nodes if "conv2d" in node.op]
    assert convolutions
    assert all(node.attrs["use_bias"] for node in convolutions)
    assert {node.attrs["function"] for node in nodes if node.op == "activation"} == {"relu"}


@pytest.mark.parametrize("has_expansion", [True, False])
def test_from_proto_takes_level_4_where_there_is_no_expansion(has_expansion):
    b = Builder()
    levels = {level: b.input((64 >> level, 64 >> level, 8), f"c{level}") for level in range(2, 6)}
    expansion = b.input((4, 4, 24), "expansion") if has_expansion else None
    features = BackboneFeatures(levels, b.input((2, 2, 40), "last"), expansion)
    proto = architecture_pb2.SsdLayers(channels=[32], separable=True)
    (found,) = from_proto(b, features, proto)
    assert [node.name for node in found] == [
        "expansion" if has_expansion else "c4",
        "last",
        "extra_0/pointwise/relu6",
    ]


@pytest.mark.parametrize(
    ("name", "params", "multiply_adds"),
    # Trainable weights and multiply-adds with 90 classes: of the papers' 4.3 M (80 classes) and
    # 0.8 B; 4.9 M and 0.8 B; 4.97 M and 0.62 B; 3.22 M and 0.51 B, independently counted.
    [
        ("mobilenet_v2_ssdlite", 4.50e6, 0.804e9),
        ("mnasnet_a1_ssdlite", 4.912e6, 0.838e9),
        ("mobilenet_v3_large_ssdlite", 5.007e6, 0.613e9),
        ("mobilenet_v3_large_halved_ssdlite", 3.248e6, 0.507e9),
    ],
)
def test_figures_of_the_published_detectors(name, params, multiply_adds):
    path = ROOT / "configs" / "architectures" / f"{name}.textproto"
    architecture = text_proto.read(path, architecture_pb2.Architecture)
    total = cost_sheet(detection_network(architecture, (320, 320), 90).deployed.outputs).total
    assert total.trainable_params == pytest.approx(params, rel=1e-3)
    assert total.multiply_adds == pytest.approx(multiply_adds, rel=1e-3)


def test_weights_of_mobilenet_v2_ssdlite_with_80_classes():
    path = ROOT / "configs" / "architectures" / "mobilenet_v2_ssdlite.textproto"
    architecture = text_proto.read(path, architecture_pb2.Architecture)
    total = cost_sheet(detection_network(architecture, (320, 320), 80).deployed.outputs).total
    assert total.trainable_params == pytest.approx(4.34e6, rel=1e-3)

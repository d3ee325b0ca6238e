"""MobileNetV2 against its paper's table and its public counts."""

import pytest

from mnasdet import config
from mnasdet.backbones.mobilenet_v2 import mobilenet_v2
from mnasdet.models import network_of
from mnasdet.networks.blocks import round_channels
from mnasdet.networks.builder import Builder, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import architecture_pb2


def features(size=320, **arguments):
    b = Builder()
    with b.scope("backbone"):
        return mobilenet_v2(b, b.input((size, size, 3)), **arguments)


def test_taps_of_the_published_network():
    taps = features()
    shapes = {level: node.shape for level, node in taps.levels.items()}
    assert shapes == {2: (80, 80, 24), 3: (40, 40, 32), 4: (20, 20, 96), 5: (10, 10, 320)}
    # SSDLite's: the expansion of layer_15, and layer_19.
    assert taps.expansion.shape == (20, 20, 576)
    assert taps.last.shape == (10, 10, 1280)


def test_taps_at_0_7_and_odd_sizes():
    taps = features(300, depth_multiplier=0.7, min_depth=16)
    shapes = {level: node.shape for level, node in taps.levels.items()}
    assert shapes == {2: (75, 75, 16), 3: (38, 38, 24), 4: (19, 19, 64), 5: (10, 10, 224)}


def test_counts():
    # 1.812 M trainable weights and 0.570 B multiply-adds up to the 320-wide layer.
    total = cost_sheet(features().from_level(3)).total
    assert total.trainable_params == pytest.approx(1.812e6, rel=1e-3)
    assert total.multiply_adds == pytest.approx(0.570e9, rel=1e-3)


def architecture(multiplier, classifier):
    built = architecture_pb2.Architecture(depth_multiplier=multiplier, min_depth=8)
    built.backbone.mobilenet_v2.SetInParent()
    if classifier:
        built.classifier.SetInParent()
        return built
    detector = config.load_architecture("mobilenet_v2_ssdlite")
    detector.MergeFrom(built)
    return detector


@pytest.mark.parametrize(
    ("multiplier", "params", "multiply_adds"),
    # slim's table of its published classifiers, at 224x224 with 1001 classes.
    [(0.35, 1.66e6, 59e6), (0.5, 1.95e6, 97e6), (0.75, 2.61e6, 209e6), (1.4, 6.06e6, 582e6)],
)
def test_a_narrow_classifier_keeps_its_last_convolution(multiplier, params, multiply_adds):
    total = cost_sheet(network_of(architecture(multiplier, True), (224, 224), 1001).outputs).total
    assert total.trainable_params == pytest.approx(params, rel=0.02)
    assert total.multiply_adds == pytest.approx(multiply_adds, rel=0.02)


def test_a_narrow_detector_scales_it_as_the_od_api_does():
    outputs = network_of(architecture(0.35, False), (300, 300), 90).outputs
    (last,) = {n.channels for n in reachable(outputs) if n.name == "backbone/layer_19/conv"}
    assert last == 448


@pytest.mark.parametrize(
    ("channels", "minimum", "expected"),
    # slim's rule by hand: 11.2 rounds to 8, which is below 90 %, so 16.
    [(32, 8, 32), (11.2, 8, 16), (22.4, 16, 24), (16.8, 16, 16), (5, 16, 16), (67.2, 8, 64)],
)
def test_round_channels(channels, minimum, expected):
    assert round_channels(channels, minimum) == expected

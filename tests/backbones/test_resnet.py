"""ResNet and ResNeXt against their public counts."""

import numpy as np
import pytest

from mnasdet.backbones.resnet import from_proto, resnet
from mnasdet.heads.classifier import classifier
from mnasdet.networks.builder import Builder, canonical_key, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.keras_builder import keras_model
from mnasdet.protos import architecture_pb2


def backbone(image_size=(64, 64), **arguments):
    b = Builder()
    return resnet(b, b.input((*image_size, 3)), **arguments)


@pytest.mark.parametrize(
    ("arguments", "params", "multiply_adds"),
    # The exact weights are those of torchvision's models. The papers' multiply-adds are lower for
    # bottlenecks, 3.86 G for 50 and 7.6 G for 101, which stride in the first 1x1 convolution.
    [
        ({"depth": 18}, 11_689_512, 1.81e9),
        ({"depth": 34}, 21_797_672, 3.66e9),
        ({"depth": 50}, 25_557_032, 4.09e9),
        ({"depth": 101}, 44_549_160, 7.80e9),
        ({"depth": 152}, 60_192_808, 11.51e9),
        ({"depth": 50, "groups": 32, "width_per_group": 4}, 25_028_904, 4.23e9),
        ({"depth": 101, "groups": 32, "width_per_group": 4}, 44_177_704, 7.97e9),
    ],
)
def test_counts_of_the_classifiers(arguments, params, multiply_adds):
    b = Builder()
    features = resnet(b, b.input((224, 224, 3)), **arguments)
    total = cost_sheet([classifier(b, features.last, num_classes=1000)]).total
    assert total.trainable_params == params
    assert total.multiply_adds == pytest.approx(multiply_adds, rel=0.003)


@pytest.mark.parametrize(
    ("depth", "widths"), [(10, [64, 128, 256, 512]), (50, [256, 512, 1024, 2048])]
)
def test_levels_at_an_odd_size(depth, widths):
    features = backbone((321, 300), depth=depth)
    sizes = [(81, 75), (41, 38), (21, 19), (11, 10)]
    assert [node.shape for node in features.from_level(2)] == [
        (*size, channels) for size, channels in zip(sizes, widths, strict=True)
    ]
    assert features.last is features.levels[5]
    assert features.expansion is None


def test_resnet_10_has_a_block_a_stage():
    names = [node.name for node in reachable([backbone(depth=10).last])]
    assert sum(name.endswith("/add") for name in names) == 4
    # Only the stages that stride have a projection.
    shortcuts = [name.split("/")[0] for name in names if name.endswith("shortcut/conv")]
    assert shortcuts == ["stage_3", "stage_4", "stage_5"]


def test_a_bottleneck_strides_and_is_grouped_in_its_3x3_convolution():
    features = backbone(depth=50, groups=32, width_per_group=4)
    nodes = {node.name: node for node in reachable([features.last])}
    for layer, kernel_size, strides, groups, channels in [
        (1, 1, 1, 1, 256),
        (2, 3, 2, 32, 256),
        (3, 1, 1, 1, 512),
    ]:
        conv = nodes[f"stage_3/block_1/layer_{layer}/conv"]
        found = [conv.attrs[name] for name in ("kernel_size", "strides", "groups")]
        assert [*found, conv.channels] == [kernel_size, strides, groups, channels]


@pytest.mark.parametrize(("depth", "multiply_adds"), [(50, 3.8e9), (101, 7.6e9), (152, 11.3e9)])
def test_strides_in_the_first_convolution_give_the_paper_s_counts(depth, multiply_adds):
    """Table 1 of He et al.; with strides in the 3x3 convolutions they are 0.23e9 more."""
    b = Builder()
    features = resnet(b, b.input((224, 224, 3)), depth=depth, strides_in_1x1=True)
    total = cost_sheet([classifier(b, features.last, num_classes=1000)]).total
    assert total.multiply_adds == pytest.approx(multiply_adds, abs=0.07e9)
    nodes = {node.name: node for node in reachable([features.last])}
    strides = [nodes[f"stage_3/block_1/layer_{layer}/conv"].attrs["strides"] for layer in (1, 2, 3)]
    assert strides == [2, 1, 1]


def test_depth_multiplier():
    widths = [node.channels for node in backbone(depth=50, depth_multiplier=0.3).from_level(2)]
    # 76.8, 153.6, 307.2 and 614.4 to the nearest multiples of 8.
    assert widths == [80, 152, 304, 616]
    nodes = reachable([backbone(depth=50, groups=32, width_per_group=4, depth_multiplier=0.3).last])
    inner = {node.name: node.channels for node in nodes}
    # 128 * 0.3 = 38.4: multiples of the 32 groups.
    assert inner["stage_2/block_1/layer_2/conv"] == 64


def test_allowed_arguments():
    with pytest.raises(ValueError, match=r"depth is 42; one of \[10, 18, 34, 50, 101, 152\]"):
        backbone(depth=42)
    with pytest.raises(ValueError, match="groups is 32 and width_per_group is 4; depth 18"):
        backbone(depth=18, groups=32, width_per_group=4)


def test_from_proto():
    b = Builder()
    proto = architecture_pb2.ResNet(depth=101, groups=32, width_per_group=4, strides_in_1x1=True)
    features = from_proto(b, b.input((64, 64, 3)), proto)
    expected = backbone(depth=101, groups=32, width_per_group=4, strides_in_1x1=True)
    assert canonical_key([features.last]) == canonical_key([expected.last])


def test_keras_has_the_weights_of_the_cost_sheet():
    features = backbone((33, 40), depth=50, groups=4, width_per_group=4, depth_multiplier=0.5)
    model = keras_model({"last": features.last})
    assert model.count_params() == cost_sheet([features.last]).total.params
    assert model(np.zeros((1, 33, 40, 3), np.float32))["last"].shape == (1, 2, 2, 1024)

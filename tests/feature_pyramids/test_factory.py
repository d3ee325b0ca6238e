import pytest

from mnasdet.feature_pyramids.factory import pyramid_features
from mnasdet.networks.builder import Builder, reachable
from mnasdet.networks.features import BackboneFeatures
from mnasdet.protos import architecture_pb2

FIELDS = architecture_pb2.FeaturePyramid.DESCRIPTOR.oneofs_by_name["feature_pyramid_oneof"].fields


def proto_of(name):
    proto = architecture_pb2.FeaturePyramid()
    pyramid = getattr(proto, name)
    pyramid.SetInParent()
    if name == "mnasfpn":
        for level in (3, 4, 5, 6):
            pyramid.block.add(input=[1, 2], level=level, expanded_channels=32)
    elif name == "nas_fpn":
        for level in (3, 4, 5, 6, 7):
            pyramid.cell.add(input=[1, 2], level=level)
    elif name == "ssd_layers":
        pyramid.channels[:] = [512, 256, 256, 128]
    elif name == "hit":
        for layers in (pyramid.lateral, pyramid.output):
            for _ in range(4):
                layers.add(op=["sep_k3"])
    return proto


@pytest.mark.parametrize(
    ("name", "repeats", "levels"),
    [("mnasfpn", 4, 4), ("fpn", 1, 5), ("nas_fpn", 7, 5), ("ssd_layers", 1, 6), ("hit", 1, 5)],
)
def test_every_pyramid_of_the_message_is_built_in_its_scope(name, repeats, levels):
    b = Builder()
    inputs = {level: b.input((64 >> level - 2, 64 >> level - 2, 8)) for level in (2, 3, 4, 5)}
    exits = pyramid_features(b, BackboneFeatures(inputs, inputs[5]), proto_of(name))
    assert [len(features) for features in exits] == [levels] * repeats
    layers = [node.name for node in reachable(exits[-1]) if node.op != "input"]
    assert layers
    assert all(layer.startswith("feature_pyramid/") for layer in layers)


def test_no_pyramid_of_the_message_is_left_out_above():
    assert [field.name for field in FIELDS] == ["mnasfpn", "fpn", "nas_fpn", "ssd_layers", "hit"]


def test_without_a_pyramid_the_backbone_s_last_level_is_the_feature():
    b = Builder()
    inputs = {level: b.input((64 >> level, 64 >> level, 8)) for level in (2, 3, 4, 5)}
    features = BackboneFeatures(inputs, b.input((2, 2, 24), "last"))
    assert pyramid_features(b, features, architecture_pb2.FeaturePyramid()) == [[inputs[5]]]

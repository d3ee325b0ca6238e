import pytest

from mnasdet.backbones.factory import backbone_features
from mnasdet.networks.builder import Builder, reachable
from mnasdet.networks.cost import cost_sheet
from mnasdet.protos import architecture_pb2

FIELDS = architecture_pb2.Backbone.DESCRIPTOR.oneofs_by_name["backbone_oneof"].fields


def built(proto, **arguments):
    b = Builder()
    return backbone_features(b, b.input((64, 96, 3)), proto, **arguments)


def proto_of(name):
    proto = architecture_pb2.Backbone()
    backbone = getattr(proto, name)
    backbone.SetInParent()
    if name == "base_code":
        backbone.code = "basicblock_8_1-2-2-2"
    elif name == "mnasnet":
        for stride in (1, 2, 2, 2, 2):
            backbone.block.add(stride=stride, channels=16)
    elif name == "operation_layers":
        for _ in range(4):
            backbone.layer.add(op=["conv_k3"], stride=2, channels=16)
    return proto


@pytest.mark.parametrize("name", [field.name for field in FIELDS])
def test_every_backbone_of_the_message_is_built_in_its_scope(name):
    features = built(proto_of(name))
    assert {level: x.size for level, x in features.levels.items() if level > 2} == {
        3: (8, 12),
        4: (4, 6),
        5: (2, 3),
    }
    layers = [node.name for node in reachable([features.last]) if node.op != "input"]
    assert all(layer.startswith("backbone/") for layer in layers)


def test_hyperparams_of_the_message_stand_in_place_of_the_publication_s():
    proto = proto_of("mobilenet_v2")
    published = cost_sheet([built(proto).last]).total
    assert {node.op for node in reachable([built(proto).last])} >= {"batch_norm"}
    proto.conv_hyperparams.activation = proto.conv_hyperparams.RELU
    plain = built(proto)
    assert "batch_norm" not in {node.op for node in reachable([plain.last])}
    # A bias of one number stands in place of the four of a batch normalisation.
    biases = sum(n.channels for n in reachable([plain.last]) if n.attrs.get("use_bias"))
    assert cost_sheet([plain.last]).total.params == published.params - 3 * biases


def test_the_multiplier_scales_and_min_depth_limits():
    narrow = built(proto_of("mobilenet_v2"), depth_multiplier=0.1, min_depth=16)
    # 0.1 * 32, 96 and 320 channels.
    assert [narrow.levels[level].channels for level in (3, 4, 5)] == [16, 16, 32]

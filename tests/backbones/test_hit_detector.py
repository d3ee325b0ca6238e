"""Hit-Detector's backbone and neck, published and as supernets."""

import random

import pytest
from google.protobuf import text_format

from mnasdet import config, models
from mnasdet.architecture_string.conversion import from_string, to_string
from mnasdet.backbones.factory import backbone_features
from mnasdet.config_checks.architecture import architecture_problems
from mnasdet.errors import ConfigError
from mnasdet.feature_pyramids.factory import pyramid_features
from mnasdet.networks import choices
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.graph import Graph, Network
from mnasdet.operation_names import POOL
from mnasdet.protos import architecture_pb2

# The released network (HitDet.pytorch): operation, channels and stride of every layer.
BACKBONE = [
    ("ir_k3_e3", 48, 2),
    ("ir_k3_e3", 48, 1),
    ("ir_k3_d2_e3", 48, 1),
    ("ir_k3_e3", 48, 1),
    ("ir_k5_e6", 96, 2),
    ("ir_k5_e6", 96, 1),
    ("ir_k3_e3", 96, 1),
    ("ir_k3_e3", 96, 1),
    ("ir_k7_e6", 184, 2),
    ("ir_k5_e6", 184, 1),
    ("ir_k5_d2_e6", 184, 1),
    ("ir_k5_e3", 184, 1),
    ("ir_k5_e6", 256, 1),
    ("ir_k5_d2_e6", 256, 1),
    ("ir_k5_e6", 256, 1),
    ("ir_k5_d2_e6", 256, 1),
    ("ir_k7_e6", 352, 2),
    ("ir_k5_e6", 352, 1),
    ("ir_k5_d2_e6", 352, 1),
    ("ir_k5_e6", 352, 1),
    ("ir_k3_e3", 1024, 1),
]
LATERALS = ["sep_k5_d3", "sep_k5_d3", "sep_k5_d2", "sep_k3_d3"]
OUTPUTS = ["sep_k3_d3", "sep_k5_d3", "sep_k5_d3", "sep_k3_d3"]


def architecture(backbone, laterals, outputs, stem=16, last=2048, channels=256):
    """Every operation may be a list of several."""

    def listed(ops):
        return [ops] if isinstance(ops, str) else ops

    layers = [{"op": listed(op), "channels": width, "stride": s} for op, width, s in backbone]
    return architecture_pb2.Architecture(
        backbone={
            "operation_layers": {"stem_channels": stem, "layer": layers, "last_channels": last}
        },
        feature_pyramid={
            "hit": {
                "channels": channels,
                "lateral": [{"op": listed(ops)} for ops in laterals],
                "output": [{"op": listed(ops)} for ops in outputs],
            }
        },
    )


def features(built, size=(800, 1200)):
    b = Builder()
    backbone = backbone_features(b, b.input((*size, 3)), built.backbone)
    (pyramid,) = pyramid_features(b, backbone, built.feature_pyramid)
    return backbone, pyramid


def test_the_published_network_has_the_papers_counts():
    backbone, pyramid = features(architecture(BACKBONE, LATERALS, OUTPUTS))
    assert {level: node.channels for level, node in backbone.levels.items()} == {
        2: 48,
        3: 96,
        4: 256,
        5: 2048,
    }
    assert [node.shape for node in pyramid] == [
        (200, 300, 256),
        (100, 150, 256),
        (50, 75, 256),
        (25, 38, 256),
        (13, 19, 256),
    ]
    parts = cost_sheet(pyramid).parts
    # Table 1 counts no moving averages.
    assert parts["backbone"].trainable_params == pytest.approx(13.882e6, rel=1e-4)
    assert parts["feature_pyramid"].trainable_params == pytest.approx(2.716e6, rel=1e-4)
    assert parts["backbone"].multiply_adds == pytest.approx(34.6e9, rel=2e-3)
    assert parts["feature_pyramid"].multiply_adds == pytest.approx(19.1e9, rel=2e-3)


def test_every_network_of_the_supernet_is_the_one_that_is_built_plainly():
    ops = [str(op) for op in (POOL[1], POOL[4], POOL[13], POOL[18], POOL[20], POOL[23])]
    slots = [(8, 2), (8, 1), (16, 2), (16, 2), (16, 1), (24, 2)]

    def network(lists):
        backbone = [(each, *slot) for each, slot in zip(lists[:6], slots, strict=True)]
        built = architecture(backbone, lists[6:10], lists[10:], stem=8, last=0, channels=16)
        _, pyramid = features(built, (64, 64))
        return Network({"": Graph({str(place): node for place, node in enumerate(pyramid)})})

    whole = network([ops] * 14)
    assert choices.cardinality(whole) == 6**14
    # In the order of the layers: choices come as the outputs need them.
    names = [f"backbone/layer_{number}/choice" for number in range(1, 7)]
    names += [f"feature_pyramid/lateral_{place}/choice" for place in range(4)]
    names += [f"feature_pyramid/output_{place}/choice" for place in range(4)]
    costs, rng = choices.costs(whole), random.Random(1)
    for _ in range(50):
        picked = [rng.randrange(len(ops)) for _ in names]
        chosen = dict(zip(names, picked, strict=True))
        derived, plain = choices.derive(whole, chosen), network([ops[place] for place in picked])
        assert derived.key() == plain.key()
        assert cost_sheet(derived).total == cost_sheet(plain).total
        assert costs.of(chosen) == cost_sheet(plain).total.multiply_adds


def test_problems_name_the_layer():
    built = architecture(BACKBONE, LATERALS, OUTPUTS[:3])
    built.backbone.operation_layers.layer[2].op[:] = ["ir_k3_d2"]
    built.backbone.operation_layers.layer[3].op.append("ir_k3_e3")
    built.backbone.operation_layers.layer[4].stride = 1
    text = "\n".join(architecture_problems(text_format.Parse(str(built), type(built)())))
    assert "layer[2].op is ir_k3_d2: no operation" in text
    assert "layer[3].op is ['ir_k3_e3', 'ir_k3_e3']; each operation at most once" in text
    assert "has stride 2 3 times; 4 times is needed" in text
    assert "hit.output is there 3 times; 4 are needed" in text


def test_the_published_detector_has_the_papers_counts():
    published = config.load_architecture("hit_detector")
    sheet = cost_sheet(models.network_of(published, (800, 1200), 80))
    # The paper's table 1 and the release, in millions; 268.2 G multiply-adds with 1000 proposals.
    # Table 2 prints 272.3 B, which counts element-wise work as well.
    counted = {part: cost.trainable_params / 1e6 for part, cost in sheet.parts.items()}
    assert counted == {
        "backbone": pytest.approx(13.882, rel=1e-3),
        "feature_pyramid": pytest.approx(2.716, rel=1e-3),
        "region_proposal": pytest.approx(0.594, rel=1e-3),
        "region_head": pytest.approx(9.932, rel=1e-3),
    }
    assert sheet.total.trainable_params == pytest.approx(27.124e6, rel=1e-3)
    assert sheet.total.multiply_adds == pytest.approx(268.2e9, rel=1e-2)


@pytest.mark.parametrize("more", [[], ["sep_k3_d1", "conv_k5_d2"]])
def test_the_string_of_a_detector_is_read_back(more):
    published = config.load_architecture("hit_detector")
    for layer in published.backbone.operation_layers.layer:
        layer.op.extend(more)
    again = from_string(to_string(published))
    assert to_string(again) == to_string(published)
    first, second = (models.network_of(each, (64, 64), 3) for each in (again, published))
    assert first.key() == second.key()
    with pytest.raises(ConfigError, match='no operation "ir_k3_e9x"'):
        from_string("operations_s16_op_ir-k3-e9x_c48/hit_c256")

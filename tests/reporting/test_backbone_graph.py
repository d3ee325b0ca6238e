import re
import xml.etree.ElementTree as ET

import pytest

from mnasdet import config
from mnasdet.protos import architecture_pb2
from mnasdet.reporting import backbone_graph

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def a1():
    """MnasNet-A1 as a classifier."""
    return config.load_architecture("mnasnet_a1")


def boxes(root):
    """The lines of text of every box."""
    groups = [group for group in root.findall(f"{SVG}g") if group.find(f"{SVG}rect") is not None]
    return [[text.text for text in group.iter(f"{SVG}text")] for group in groups]


def test_the_published_blocks(a1):
    root = ET.fromstring(backbone_graph.svg(a1, (224, 224)))
    assert boxes(root) == [
        ["Conv", "3×3", "32 channels"],
        ["MBConv1", "3×3  ×1", "16 channels", "no skip"],
        ["MBConv6", "3×3  ×2", "24 channels"],
        ["MBConv3", "5×5  ×3", "40 channels", "SE 0.25"],
        ["MBConv6", "3×3  ×4", "80 channels"],
        ["MBConv6", "3×3  ×2", "112 channels", "SE 0.25"],
        ["MBConv6", "5×5  ×3", "160 channels", "SE 0.25"],
        ["MBConv6", "3×3  ×1", "320 channels"],
        ["Conv", "1×1", "1280 channels"],
    ]
    sizes = [text.text for text in root.findall(f"{SVG}text")]
    assert sizes == [
        "1/2 · 112×112",
        "1/4 · 56×56",
        "1/8 · 28×28",
        "1/16 · 14×14",
        "1/32 · 7×7",
    ]


def test_kernel_sizes_have_colours_and_layers_are_cards(a1):
    groups = ET.fromstring(backbone_graph.svg(a1)).findall(f"{SVG}g")
    shown = [(group.get("class"), len(group.findall(f"{SVG}rect"))) for group in groups]
    blocks = [pair for pair in shown if pair[0]]
    assert blocks == [
        ("k3", 1),
        ("k3", 2),
        ("k5", 3),
        ("k3", 4),
        ("k3", 2),
        ("k5", 3),
        ("k3", 1),
    ]


def test_what_a_pyramid_takes(a1):
    joint = config.load_architecture("mobilenet_v2_mnasfpn")
    joint.backbone.CopyFrom(a1.backbone)
    shown = boxes(ET.fromstring(backbone_graph.svg(joint)))
    # The last blocks of strides 8, 16 and 32; the layer behind them is not built.
    assert [lines[-1] for lines in shown if lines[-1].startswith("C")] == ["C3", "C4", "C5"]
    assert [shown[place][-1] for place in (3, 5, 7)] == ["C3", "C4", "C5"]
    assert len(shown) == 8


def test_other_operations_and_scaled_widths(a1):
    proto = a1.backbone.mnasnet
    proto.block[1].op = architecture_pb2.MnasNet.CONV
    proto.block[2].op = architecture_pb2.MnasNet.SEPARABLE
    proto.block[3].skip = architecture_pb2.MnasNet.POOL
    a1.depth_multiplier, a1.min_depth = 0.5, 8
    shown = boxes(ET.fromstring(backbone_graph.svg(a1)))
    assert shown[0] == ["Conv", "3×3", "16 channels"]
    assert shown[2] == ["Conv", "3×3  ×2", "16 channels"]
    assert shown[3] == ["SepConv", "5×5  ×3", "24 channels", "SE 0.25"]
    assert shown[4] == ["MBConv6", "3×3  ×4", "40 channels", "pool skip"]
    # No multiplier scales the last layer.
    assert shown[-1] == ["Conv", "1×1", "1280 channels"]


def test_text_stays_in_its_box(a1):
    for block in a1.backbone.mnasnet.block:
        block.skip, block.se_ratio = architecture_pb2.MnasNet.POOL, 0.25
    svg = backbone_graph.svg(a1)
    root = ET.fromstring(svg)
    for group in root.findall(f"{SVG}g"):
        rects = group.findall(f"{SVG}rect")
        if rects:
            top = float(rects[-1].get("y"))
            bottom = top + float(rects[-1].get("height"))
            for text in group.findall(f"{SVG}text"):
                assert top + 10 < float(text.get("y")) < bottom - 4
    assert not re.search(r"\.\d{6}", svg)


def test_another_backbone():
    other = config.load_architecture("mobilenet_v2_mnasfpn")
    assert backbone_graph.svg(other) == backbone_graph.caption(other) == ""


def test_the_blocks_of_a_base_code():
    """SM-NAS's E0: one block at stride 4; then 128 channels twice, 256 thrice, twice again."""
    e0 = architecture_pb2.Architecture()
    e0.backbone.base_code.code = "basicblock_64_1-21-21-12"
    e0.region_head.SetInParent()
    root = ET.fromstring(backbone_graph.svg(e0, (512, 512)))
    assert boxes(root) == [
        ["Conv", "3×3", "32 channels"],
        ["Conv", "3×3", "64 channels"],
        ["Basic block", "3×3  ×1", "64 channels", "C2"],
        ["Basic block", "3×3  ×2", "128 channels", "C3"],
        ["Basic block", "3×3  ×2", "256 channels", "C4"],
        ["Basic block", "3×3  ×1", "256 channels"],
        ["Basic block", "3×3  ×1", "512 channels", "C5"],
    ]
    sizes = [text.text for text in root.findall(f"{SVG}text")]
    assert sizes == [
        "1/2 · 256×256",
        "1/4 · 128×128",
        "1/8 · 64×64",
        "1/16 · 32×32",
        "1/32 · 16×16",
    ]
    assert "basicblock_64_1-21-21-12" in backbone_graph.caption(e0)

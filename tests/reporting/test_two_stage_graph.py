"""The drawing of a two-stage detector."""

import xml.etree.ElementTree as ET

from mnasdet import config
from mnasdet.reporting import graphs, two_stage_graph

SVG = "{http://www.w3.org/2000/svg}"


def boxes(svg):
    root = ET.fromstring(svg)
    groups = [group for group in root.findall(f"{SVG}g") if group.find(f"{SVG}rect") is not None]
    return [[text.text for text in group.iter(f"{SVG}text")] for group in groups]


def test_a_cascade_from_the_image_to_its_detections():
    cascade = config.load_architecture("cascade_rcnn_resnet50_fpn")
    assert boxes(two_stage_graph.svg(cascade, (800, 1344))) == [
        ["C2", "200×336"],
        ["C3", "100×168"],
        ["C4", "50×84"],
        ["C5", "25×42"],
        ["P2", "200×336"],
        ["P3", "100×168"],
        ["P4", "50×84"],
        ["P5", "25×42"],
        # 25 × 42 halved, rounded up.
        ["P6", "13×21"],
        ["Region proposals", "RPN, 256 channels"],
        ["RoIAlign 7×7", "1,000 regions"],
        ["Stage 1 · IoU 0.5", "2 FC, 1024 channels"],
        ["Stage 2 · IoU 0.6", "2 FC, 1024 channels"],
        ["Stage 3 · IoU 0.7", "2 FC, 1024 channels"],
        ["Detections", "classes and boxes"],
    ]
    assert "crops the boxes of the stage before anew" in two_stage_graph.caption(cascade)


def test_regions_are_cropped_from_the_levels_of_the_backbone():
    cascade = config.load_architecture("cascade_rcnn_resnet50_fpn")
    root = ET.fromstring(two_stage_graph.svg(cascade))
    dashed = [path for path in root.findall(f"{SVG}path") if path.get("class") == "dashed"]
    # P2 to P5, without P6.
    assert len(dashed) == 4


def test_a_detector_without_a_pyramid():
    guided = config.load_architecture("ga_faster_rcnn_resnet50_fpn")
    assert ["Guided anchors", "RPN, 256 channels"] in boxes(two_stage_graph.svg(guided))
    alone = config.load_architecture("faster_rcnn_resnet50_fpn")
    alone.ClearField("feature_pyramid")
    alone.region_head.last_backbone_stage.SetInParent()
    shown = boxes(two_stage_graph.svg(alone, (64, 96)))
    assert shown[0] == ["C4", "4×6"]
    assert ["Stage 1 · IoU 0.5", "last stage of backbone"] in shown


def test_detectors_of_one_stage_are_not_drawn():
    other = config.load_architecture("mobilenet_v2_mnasfpn")
    assert two_stage_graph.svg(other) == two_stage_graph.caption(other) == ""


def test_a_report_draws_backbone_and_stages():
    e0 = config.load_architecture("sm_nas_e0")
    drawn = str(graphs.small(e0, None, "trial-3"))
    assert drawn.count("<svg") == 2
    assert 'id="trial-3-stages-arrow"' in drawn
    titles = ["The best backbone", "The best detector"]
    sections = [str(section) for section in graphs.sections(e0, None) if section]
    assert [f"<h2>{title}</h2>" in section for title, section in zip(titles, sections, strict=True)]

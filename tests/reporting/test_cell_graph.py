import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mnasdet import config
from mnasdet.protos import architecture_pb2
from mnasdet.reporting import cell_graph
from mnasdet.search_spaces.composed import ComposedSpace
from mnasdet.search_spaces.nas_fpn import NasFpnPart
from tests.search_spaces.architectures import mnasfpn_space

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def published():
    return config.load_architecture("mobilenet_v2_mnasfpn")


def labels(root):
    """(title, subtitle) of every box."""
    return [tuple(text.text for text in group.iter(f"{SVG}text")) for group in root.iter(f"{SVG}g")]


def arrows(root):
    return root.findall(f"{SVG}path")


def test_the_published_cell(published):
    root = ET.fromstring(cell_graph.svg(published, (320, 256)))
    assert labels(root) == [
        ("C3", "40×32×48"),
        ("C4", "20×16×48"),
        ("C5", "10×8×48"),
        ("C6", "5×4×48"),
        ("F=256 · add · k=3", "B0 · L4 · 20×16"),
        ("F=128 · add · k=3", "B1 · L3 · 40×32"),
        ("F=128 · add · k=3", "B2 · L4 · 20×16"),
        ("F=128 · add · k=5", "B3 · L5 · 10×8"),
        ("F=96 · add · k=3", "B4 · L6 · 5×4"),
        ("P3", "40×32×48"),
        ("P4", "20×16×48"),
        ("P5", "10×8×48"),
        ("P6", "5×4×48"),
    ]
    dashed = [path.get("class") == "dashed" for path in arrows(root)]
    # Two into each of five blocks, one out of each of four, four residuals.
    assert dashed == [False] * 14 + [True] * 4


def test_inputs_are_on_top_and_outputs_at_the_bottom(published):
    root = ET.fromstring(cell_graph.svg(published, (320, 320)))
    y = {title: float(g.find(f"{SVG}rect").get("y")) for g in root.iter(f"{SVG}g")
         for title in [g.find(f"{SVG}text").text]}  # fmt: skip
    assert y["C3"] == y["C6"] == min(y.values())
    assert y["P3"] == y["P6"] == max(y.values())


def test_the_multiplier_scales_widths(published):
    narrow = type(published)()
    narrow.CopyFrom(published)
    narrow.depth_multiplier = 0.5
    titles = [title for title, _ in labels(ET.fromstring(cell_graph.svg(narrow, (320, 320))))]
    assert "F=128 · add · k=3" in titles
    assert "F=48 · add · k=3" in titles


def test_without_image_size_and_residuals(published):
    plain = type(published)()
    plain.CopyFrom(published)
    plain.feature_pyramid.mnasfpn.cell_residual = False
    root = ET.fromstring(cell_graph.svg(plain))
    assert labels(root)[0] == ("C3", "1/8")
    assert labels(root)[4][1] == "B0 · L4 · 1/16"
    assert not [path for path in arrows(root) if path.get("class")]


def test_no_arrow_runs_through_a_box_it_does_not_belong_to(published):
    space = mnasfpn_space(published)
    rng = np.random.default_rng(0)
    for _ in range(30):
        check_arrows(ET.fromstring(cell_graph.svg(space.decode(space.sample(rng)), (320, 320))))


def check_arrows(root):
    boxes = [
        tuple(float(rect.get(name)) for name in ("x", "y", "width", "height"))
        for rect in root.iter(f"{SVG}rect")
    ]
    for path in arrows(root):
        for px, py in points(path.get("d")):
            assert not any(x < px < x + w and y < py < y + h for x, y, w, h in boxes)


def test_squeeze_and_excite_is_told_apart(published):
    gated = type(published)()
    gated.CopyFrom(published)
    gated.feature_pyramid.mnasfpn.block[0].merge = architecture_pb2.MnasFpn.SQUEEZE_EXCITE
    root = ET.fromstring(cell_graph.svg(gated))
    kinds = {g.find(f"{SVG}text").text: g.get("class") for g in root.iter(f"{SVG}g")}
    assert kinds["F=256 · SE · k=3"] == "gated"
    assert kinds["F=96 · add · k=3"] == "block"


@pytest.fixture(scope="module")
def nas_fpn():
    """Figure 6 of Ghiasi et al."""
    return config.load_architecture("resnet50_nas_fpn_7_256")


def test_the_published_merging_cells(nas_fpn):
    root = ET.fromstring(cell_graph.svg(nas_fpn, (640, 640)))
    assert labels(root)[:2] == [("C3", "80×80×256"), ("C4", "40×40×256")]
    assert labels(root)[5:12] == [
        ("GP", "B0 · L4 · 40×40"),
        ("sum", "B1 · L4 · 40×40"),
        ("sum", "B2 · L3 · 80×80"),
        ("sum", "B3 · L4 · 40×40"),
        ("GP", "B4 · L5 · 20×20"),
        ("GP", "B5 · L7 · 5×5"),
        ("GP", "B6 · L6 · 10×10"),
    ]
    # C5 and C7 go into the outputs of their levels, as nothing else uses them.
    dashed = [path for path in arrows(root) if path.get("class") == "dashed"]
    assert len(dashed) == 2
    # Two into each of seven cells, one out of each of five.
    assert len(arrows(root)) - len(dashed) == 19
    assert "Applied 7 times" in cell_graph.caption(nas_fpn)


def test_no_arrow_of_merging_cells_runs_through_a_box(nas_fpn):
    space = ComposedSpace(nas_fpn, [NasFpnPart(nas_fpn, num_internal_cells=5)])
    rng = np.random.default_rng(0)
    for _ in range(20):
        check_arrows(ET.fromstring(cell_graph.svg(space.decode(space.sample(rng)), (640, 640))))


def test_ids_begin_with_the_name(published):
    root = ET.fromstring(cell_graph.svg(published, name="trial-7"))
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert ids == ["trial-7-arrow", "trial-7-dashed"]
    used = {path.get("marker-end") for path in arrows(root)}
    assert used == {"url(#trial-7-arrow)", "url(#trial-7-dashed)"}


def test_a_pyramid_without_cell():
    plain = config.load_architecture("mobilenet_v2_fpnlite_64")
    assert cell_graph.svg(plain) == cell_graph.caption(plain) == ""


def points(d):
    """Samples of a path of M, V and C."""
    x = y = 0.0
    for command, arguments in re.findall(r"([MVC])([^MVC]*)", d):
        values = [float(value) for value in arguments.split()]
        if command == "M":
            x, y = values
        elif command == "V":
            yield from ((x, y + t * (values[0] - y)) for t in np.linspace(0, 1, 20))
            y = values[0]
        else:
            p = np.array([[x, y], *np.reshape(values, (3, 2))])
            for t in np.linspace(0, 1, 20):
                weights = [(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3]
                yield tuple(weights @ p)
            x, y = values[-2:]

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from mnasdet import config
from mnasdet.reporting import cell_graph
from mnasdet.search_spaces.mnasfpn import MnasFpnSpace

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
    dashed = [path.get("class") == "residual" for path in arrows(root)]
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
    space = MnasFpnSpace(published)
    rng = np.random.default_rng(0)
    for _ in range(30):
        root = ET.fromstring(cell_graph.svg(space.decode(space.sample(rng)), (320, 320)))
        boxes = [
            tuple(float(rect.get(name)) for name in ("x", "y", "width", "height"))
            for rect in root.iter(f"{SVG}rect")
        ]
        for path in arrows(root):
            for px, py in points(path.get("d")):
                assert not any(x < px < x + w and y < py < y + h for x, y, w, h in boxes)


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

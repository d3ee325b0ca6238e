import base64
import dataclasses
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from mnasdet.reporting import pictures
from mnasdet.reporting.pictures import Example

A, B = [0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 1.0, 0.9]
FAR = [0.45, 0.0, 0.5, 0.1]


def example(boxes, classes, scores, truth=(A, B), truth_classes=(1, 2), shape=(40, 80)):
    return Example(
        np.full((*shape, 3), 200, np.uint8),
        np.array(boxes, float).reshape(-1, 4),
        np.array(classes, int),
        np.array(scores, float),
        np.array(truth, float).reshape(-1, 4),
        np.array(truth_classes, int),
        {1: "cat", 2: "<dog>"},
    )


@pytest.mark.parametrize(
    ("boxes", "classes", "right"),
    [
        ([A, B], [1, 2], [True, True]),
        ([A, B], [2, 1], [False, False]),
        ([A, A], [1, 1], [True, False]),  # Every box is found once.
        ([FAR, A], [1, 1], [False, True]),
        ([[0.0, 0.0, 0.4, 0.19], [0.0, 0.0, 0.4, 0.21]], [1, 1], [False, True]),  # IoU 0.475, 0.525
        ([], [], []),
    ],
)
def test_what_is_right(boxes, classes, right):
    scores = np.linspace(0.9, 0.5, len(boxes))
    assert pictures.matches(example(boxes, classes, scores)).tolist() == right


def test_without_any_truth_all_is_wrong():
    assert pictures.matches(example([A], [1], [0.9], (), ())).tolist() == [False]


def test_the_score_with_the_best_f1():
    shown = example([A, FAR, B], [1, 1, 2], [0.9, 0.62, 0.42])
    # From 0.65 on 2 * 1 / (1 + 2), from 0.05 on 2 * 2 / (3 + 2).
    assert pictures.best_threshold([shown]) == (0.05, 0.8, 1)
    wrong = example([FAR], [1], [0.9])
    assert pictures.best_threshold([wrong]) == (0.3, 0.0, 1)
    # From 0.45 on 2 * 1 / (3 + 4), from 0.05 on 2 * 2 / (4 + 4); from 0.65 on 2 * 1 / (2 + 4).
    assert pictures.best_threshold([shown, wrong]) == (0.05, 0.5, 2)


def test_the_score_of_all_pictures_not_of_those_shown():
    shown = [example([A, FAR], [1, 1], [0.9, 0.2])]
    section = pictures.section(shown, pictures.Threshold(0.15, 0.4321, 1234))
    assert "Over all 1,234 pictures of the evaluation set F1 is highest, 0.43" in section
    assert 'value="0.15"' in section
    assert 'class="wrong" data-score="0.2000"' in section


def test_what_is_missed_at_a_score():
    shown = example([A, FAR], [1, 1], [0.4, 0.2])
    assert pictures.found_from(shown).tolist() == [0.4, 0.0]
    (_, found) = drawings(pictures.section([shown], pictures.Threshold(0.5, 0.1, 9)))
    missed = [g for g in found.findall(f"{SVG}g") if g.get("data-found")]
    assert [(g.get("class"), g.get("data-found")) for g in missed] == [
        ("missed", "0.4000"),
        ("missed", "0.0000"),
    ]
    (_, found) = drawings(pictures.section([shown], pictures.Threshold(0.4, 0.1, 9)))
    assert [g.get("class") for g in found.findall(f"{SVG}g")][:2] == ["missed low", "missed"]


def test_a_crowd_is_neither_found_nor_missed():
    # The first takes the single cat, the second lies in the crowd of cats, the third is a dog.
    inside = [0.5, 0.5, 0.7, 0.7]
    shown = example([A, inside, inside], [1, 1, 2], [0.9, 0.8, 0.7], truth_classes=(1, 1))
    shown = dataclasses.replace(shown, truth_is_crowd=np.array([False, True]))
    assert pictures.matches(shown).tolist() == [True, False, False]
    assert pictures.counted(shown).tolist() == [True, False, True]
    # From 0.75 on one of one is right, and one of one is found.
    assert pictures.best_threshold([shown]) == (0.75, 1.0, 1)
    truth, found = drawings(pictures.section([shown]))
    assert [g.get("class") for g in truth.findall(f"{SVG}g")] == ["true", "true crowd"]
    kinds = [g.get("class") for g in found.findall(f"{SVG}g")]
    assert kinds == ["missed low", "wrong low", "in-crowd", "right"]


def drawings(section):
    """The SVG elements of a section."""
    return [
        ET.fromstring(svg.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1))
        for svg in re.findall("<svg.*?</svg>", section)
    ]


SVG = "{http://www.w3.org/2000/svg}"


def test_truth_and_detections_side_by_side():
    section = pictures.section([example([A, FAR], [1, 1], [0.9, 0.2])])
    truth, found = drawings(section)
    assert truth.get("viewBox") == found.get("viewBox") == "0 0 80 40"
    texts = [text.text for text in truth.iter(f"{SVG}text")]
    assert texts == ["cat", "<dog>"]
    rect = truth.find(f"{SVG}g/{SVG}rect")
    assert [rect.get(name) for name in ("x", "y", "width", "height")] == [
        "0.0",
        "0.0",
        "32.0",
        "16.0",
    ]
    groups = found.findall(f"{SVG}g")
    # From 0.25 on F1 is highest: 2 / 3 by the first detection alone. The best is drawn last.
    assert [(group.get("class"), group.get("data-score")) for group in groups] == [
        ("missed low", None),
        ("missed", None),
        ("wrong low", "0.2000"),
        ("right", "0.9000"),
    ]
    assert groups[3].find(f"{SVG}text").text == "cat 0.90"
    # One picture, used twice.
    assert section.count("data:image/jpeg") == 1
    assert found.find(f"{SVG}use").get("href") == "#" + truth.find(f"{SVG}image").get("id")


def test_many_boxes_have_tooltips_only():
    crowd = example([A], [1], [0.9], [A] * 13, [1] * 13)
    assert all("dense" in svg.get("class") for svg in drawings(pictures.section([crowd])))


def test_six_pictures_at_most_and_one_and_a_half_megabytes():
    noise = np.random.default_rng(0).integers(0, 256, (1200, 900, 3), np.uint8)
    big = dataclasses.replace(example([A], [1], [0.9]), image=noise)
    section = pictures.section([big] * 9)
    data = re.findall(r"data:image/jpeg;base64,([^\"]*)", section)
    assert len(data) == 6
    assert len(section) < 1_500_000
    image = Image.open(io.BytesIO(base64.b64decode(data[0])))
    assert image.width / image.height == pytest.approx(0.75, abs=0.01)


def test_none():
    assert pictures.section(None) == pictures.section([]) == ""

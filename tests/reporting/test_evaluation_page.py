import json

import numpy as np
import pytest

from mnasdet.evaluation.confusion import ConfusionMatrix, confusion_matrix
from mnasdet.reporting import evaluation_page
from mnasdet.reporting.judgement import Judgement
from mnasdet.reporting.pictures import Example, Threshold
from tests.evaluation.test_confusion import CAT, DOG, LEFT, NARROWER, RIGHT, judged
from tests.reporting import browser


@pytest.fixture(scope="module")
def evaluator():
    truth = [(CAT, LEFT), (DOG, RIGHT)]
    found = [(CAT, NARROWER, 0.9), (CAT, RIGHT, 0.8)]
    return judged((truth, found), ([(DOG, LEFT)], [(DOG, LEFT, 0.6)]))


@pytest.fixture(scope="module")
def folder(evaluator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "evaluation"
    example = Example(
        image=np.full((20, 30, 3), 90, np.uint8),
        boxes=np.array([LEFT]),
        classes=np.array([CAT]),
        scores=np.array([0.9]),
        truth_boxes=np.array([LEFT]),
        truth_classes=np.array([CAT]),
        class_names={CAT: "<i>cat"},
    )
    metrics = evaluator.metrics(per_category=True, all_per_category=True)
    judgement = Judgement([example], Threshold(0.5, 0.8, 2), metrics, 0.0123, 2, 3)
    path = evaluation_page.write(
        folder, "runs/<b>", judgement, evaluator.curves(), confusion_matrix(evaluator, 0.5)
    )
    assert path == folder / "index.html"
    return folder


def test_the_numbers_are_beside_the_page(folder, evaluator):
    numbers = json.loads((folder / "evaluation.json").read_text())
    assert numbers["model"] == "runs/<b>"
    assert numbers["metrics"] == evaluator.metrics(per_category=True, all_per_category=True)
    assert list(numbers["precision_recall"]["classes"]) == ["cat", "dog"]
    # The first dog was taken for a cat.
    assert numbers["confusion_matrix"]["counts"][1] == [1, 1, 0, 0]


def test_the_page_tells_of_classes_and_escapes_names(folder):
    html = (folder / "index.html").read_text()
    assert "runs/&lt;b&gt;" in html
    assert "2 pictures, 3 objects (crowds left out)" in html
    assert "± 0.0123" in html
    assert '<td class="text" data-value="cat">cat</td><td data-value="0.' in html
    # Nothing is measured of a class without objects.
    assert '<td class="text" data-value="bird">bird</td><td data-value="">-</td>' in html
    assert "Detections with a score from 0.50 on" in html
    assert "From this score on F1 is highest, 0.80." in html
    # The classes have a table; their metrics are not listed a second time.
    assert "ByCategory" not in html


def test_the_page_in_a_browser(folder, tmp_path):
    shown = browser.show(folder / "index.html", tmp_path)
    assert shown.console == []
    assert shown.dom.count("js-plotly-plot") == 3


def test_many_classes():
    """A chart has the classes with the most objects; lines of others wait in the legend."""
    count = evaluation_page._MOST_CELLS + 5
    counts = np.zeros((count + 1, count + 1), np.int64)
    counts[np.arange(count), np.arange(count)] = np.arange(1, count + 1)
    confusion = ConfusionMatrix([f"c{number}" for number in range(count)], counts, 0.3, 0.5)
    judgement = Judgement([], Threshold(0.5, 0.8, 2), {}, None, 2, 3)
    html = evaluation_page._confusion(confusion, judgement)
    assert '"c5"' in html
    assert '"c4"' not in html
    assert "The 100 classes with the most objects are shown." in html
    assert "F1" not in html

"""Precision-recall curves, worked out by hand."""

import numpy as np
import pytest

from mnasdet.evaluation.coco import AP50, CocoEvaluator
from tests.evaluation.test_confusion import CAT, DOG, LEFT, NARROWER, RIGHT, judged

NOWHERE = [0.0, 0.45, 0.2, 0.55]


@pytest.fixture(scope="module")
def evaluator():
    # Cats: right, wrong, right, and one is missed. The second right one has an IoU of 0.9.
    images = [
        ([(CAT, LEFT), (DOG, RIGHT)], [(CAT, LEFT, 0.9), (CAT, NOWHERE, 0.8)]),
        ([(CAT, LEFT)], [(CAT, NARROWER, 0.7)]),
        ([(CAT, LEFT)], []),
    ]
    return judged(*images)


def test_a_curve(evaluator):
    curves = evaluator.curves()
    # There is no bird.
    assert curves.names == ["cat", "dog"]
    assert curves.ious == pytest.approx(np.arange(0.5, 1.0, 0.05))
    assert curves.recalls == pytest.approx(np.arange(101) / 100)
    cat, dog = curves.precisions[:, 0]
    # Recall 1/3 with precision 1; then 2/3 with two of three.
    expected = [1.0] * 34 + [2 / 3] * 33 + [0.0] * 34
    assert cat == pytest.approx(expected)
    assert curves.scores[0, 0] == pytest.approx([0.9] * 34 + [0.7] * 33 + [0.0] * 34)
    assert dog == pytest.approx(np.zeros(101))
    # At an IoU of 0.95 only the first is right.
    assert curves.precisions[0, -1] == pytest.approx([1.0] * 34 + [0.0] * 67)


def test_its_mean_is_the_metric(evaluator):
    curves = evaluator.curves()
    assert curves.mean()[0].mean() == pytest.approx(evaluator.metrics()[AP50], abs=1e-12)


def test_as_json(evaluator):
    content = evaluator.curves().to_json()
    assert content["recall"][:3] == [0.0, 0.01, 0.02]
    assert list(content["classes"]) == ["cat", "dog"]
    cat = content["classes"]["cat"]
    assert list(cat) == [f"{iou / 100:.2f}" for iou in range(50, 100, 5)]
    assert cat["0.50"]["precision"][34] == 0.666667
    assert cat["0.50"]["score"][0] == 0.9


def test_nothing_to_find():
    assert CocoEvaluator({1: "cat"}).categories == {1: "cat"}
    curves = judged(([], [(CAT, LEFT, 0.5)])).curves()
    assert curves.names == []
    assert curves.to_json()["classes"] == {}

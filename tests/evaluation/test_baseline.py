"""The best constant boxes, where they can be worked out by hand."""

import numpy as np
import pytest

from mnasdet.evaluation import baseline
from mnasdet.evaluation.baseline import BASELINE_AP50, BASELINE_MAP
from mnasdet.evaluation.coco import AP50, MAP, CocoEvaluator

LEFT, RIGHT = [0.2, 0.1, 0.6, 0.4], [0.2, 0.6, 0.6, 0.9]


def evaluator(*images, crowd=False):
    """Images of different shapes, each with (class, box) pairs."""
    judge = CocoEvaluator({1: "cat", 2: "dog"})
    for number, objects in enumerate(images):
        height, width = 100 + 10 * number, 300
        boxes = np.array([box for _, box in objects]).reshape(-1, 4)
        judge.add(
            height,
            width,
            boxes,
            np.array([category for category, _ in objects]),
            np.full(len(boxes), 5000.0),
            np.full(len(boxes), crowd),
            np.zeros((0, 4)),
            np.zeros(0),
            np.zeros(0),
        )
    return judge


def test_one_box_of_three_pictures_in_four():
    judge = evaluator([(1, LEFT)], [(1, LEFT)], [(1, LEFT)], [(1, RIGHT)])
    boxes = baseline.best_boxes(judge)
    assert list(boxes) == [1]
    assert boxes[1] == pytest.approx(LEFT)
    # The first three of four are hits: precision 1 at the recalls 0, 0.01, ... 0.75 of 101.
    reached = {BASELINE_MAP: 76 / 101, BASELINE_AP50: 76 / 101}
    assert baseline.metrics(judge) == pytest.approx(reached)


def test_every_class_has_a_box_and_counts_alike():
    judge = evaluator([(1, LEFT), (2, RIGHT)], [(1, LEFT)], [(1, LEFT)], [(1, LEFT)])
    boxes = baseline.best_boxes(judge)
    assert boxes[1] == pytest.approx(LEFT)
    assert boxes[2] == pytest.approx(RIGHT)
    # Each has all of its objects, with hits before misses.
    assert baseline.metrics(judge) == pytest.approx({BASELINE_MAP: 1.0, BASELINE_AP50: 1.0})


def test_the_middle_of_a_cluster_is_better_than_any_of_its_boxes():
    low, high = np.array([0.0, 0.0, 0.4, 0.4]), np.array([0.1, 0.0, 0.5, 0.4])
    far = [(1, [0.6, 0.6, 0.9, 0.9])]
    judge = evaluator(*[[(1, low)], [(1, high)]] * 3, far)
    # IoU 0.6 with each other; 0.35 / 0.45 = 0.78 with the middle.
    assert baseline.best_boxes(judge)[1] == pytest.approx((low + high) / 2)


def test_the_box_that_hits_more_pictures_not_more_objects():
    crowded = [(1, LEFT)] * 5
    judge = evaluator(crowded, [(1, RIGHT)], [(1, RIGHT)])
    assert baseline.best_boxes(judge)[1] == pytest.approx(RIGHT)


@pytest.mark.parametrize("images", [[[]], [[], []]])
def test_nothing_to_find(images):
    metrics = baseline.metrics(evaluator(*images))
    assert metrics == {BASELINE_MAP: -1.0, BASELINE_AP50: -1.0}
    assert baseline.verdict(metrics | {MAP: -1.0, AP50: -1.0}) == ""


def test_crowds_are_no_objects():
    judge = evaluator([(1, LEFT)], crowd=True)
    assert baseline.best_boxes(judge) == {}
    assert baseline.metrics(judge)[BASELINE_MAP] == -1.0


@pytest.mark.parametrize(
    ("model", "constant", "level"),
    [
        (0.215, 0.194, True),  # The case that this is for.
        (0.243, 0.194, True),  # 0.05 above is not level any more.
        (0.245, 0.194, False),
        (0.1, 0.3, True),
        (0.02, 0.003, False),  # The first steps on a hard set.
        (0.005, 0.0, True),
        (0.0, 0.0, True),
    ],
)
def test_level(model, constant, level):
    metrics = {MAP: model, AP50: 0.555, BASELINE_MAP: constant, BASELINE_AP50: 0.552}
    assert baseline.is_level(metrics) == level
    assert baseline.verdict(metrics).startswith("Hardly better" if level else "Better than")
    assert "AP50 0.555 against 0.552" in baseline.verdict(metrics)


def test_without_a_baseline_nothing_is_said():
    assert baseline.verdict({MAP: 0.5, AP50: 0.6}) == ""

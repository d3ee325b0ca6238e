"""COCO metrics where they can be worked out by hand; pycocotools itself is trusted."""

import numpy as np
import pytest

from mnasdet.evaluation.coco import MAP, METRICS, CocoEvaluator

CATEGORIES = {1: "cell", 2: "platelet"}
BOX = np.array([[0.1, 0.2, 0.5, 0.6]])


def evaluator(detected, classes=(1,), scores=(0.9,), crowd=(False,)):
    judge = CocoEvaluator(CATEGORIES)
    judge.add(
        480,
        640,
        BOX,
        np.array([1]),
        np.array([0.4 * 480 * 0.4 * 640]),
        np.array(crowd),
        np.asarray(detected, float).reshape(-1, 4),
        np.array(classes),
        np.array(scores),
    )
    return judge


def test_a_perfect_detection():
    metrics = evaluator(BOX).metrics(per_category=True)
    assert metrics[MAP] == pytest.approx(1.0)
    assert metrics["DetectionBoxes_Precision/mAP (large)"] == pytest.approx(1.0)
    assert metrics["DetectionBoxes_Precision/mAP (small)"] == -1.0
    assert metrics["DetectionBoxes_PerformanceByCategory/mAP/cell"] == pytest.approx(1.0)
    assert metrics["DetectionBoxes_PerformanceByCategory/mAP/platelet"] == -1.0
    assert list(metrics)[: len(METRICS)] == list(METRICS)


def test_an_overlap_of_0_72_counts_at_five_of_ten_thresholds():
    # 0.4 * 0.72 of the height, inside the true box.
    shorter = [[0.1, 0.2, 0.1 + 0.4 * 0.72, 0.6]]
    metrics = evaluator(shorter).metrics()
    assert metrics[MAP] == pytest.approx(0.5)
    assert metrics["DetectionBoxes_Precision/mAP@.50IOU"] == pytest.approx(1.0)
    assert metrics["DetectionBoxes_Precision/mAP@.75IOU"] == pytest.approx(0.0)


def test_the_wrong_class_counts_for_nothing():
    assert evaluator(BOX, classes=[2]).metrics()[MAP] == 0.0


def test_no_detections_at_all():
    judge = evaluator(np.zeros((0, 4)), classes=[], scores=[])
    metrics = judge.metrics(per_category=True)
    # The box is a large one: there is nothing to measure of the other sizes.
    absent = {name for name in METRICS if name.endswith(("(small)", "(medium)"))}
    assert {name: metrics[name] for name in METRICS} == {
        name: -1.0 if name in absent else 0.0 for name in METRICS
    }
    assert metrics["DetectionBoxes_PerformanceByCategory/mAP/cell"] == 0.0
    assert metrics["DetectionBoxes_PerformanceByCategory/mAP/platelet"] == -1.0
    assert judge.num_objects == 1


@pytest.mark.parametrize("detected", [np.zeros((0, 4)), BOX])
def test_crowds_alone_are_nothing_to_find(detected):
    count = len(detected)
    judge = evaluator(detected, classes=[1] * count, scores=[0.9] * count, crowd=[True])
    assert judge.metrics() == dict.fromkeys(METRICS, -1.0)
    assert judge.num_objects == 0
    assert judge.standard_error() is None


def test_a_crowd_is_no_miss():
    judge = evaluator(np.zeros((0, 4)), classes=[], scores=[], crowd=[True])
    judge.add(480, 640, BOX, np.array([1]), np.array([1e4]), np.array([False]), BOX, [1], [0.5])
    assert judge.metrics()[MAP] == pytest.approx(1.0)


def test_the_standard_error_is_that_of_a_share():
    judge = CocoEvaluator(CATEGORIES)
    nothing = np.zeros((0, 4))
    for number in range(200):
        found = BOX if number % 2 else nothing
        truth = (BOX, np.array([1]), np.array([1e4]), np.array([False]))
        judge.add(480, 640, *truth, found, np.ones(len(found)), np.full(len(found), 0.9))
    # mAP is the share of images with a hit: sqrt(0.5 * 0.5 / 200) = 0.035. The standard deviation
    # of 20 draws is itself right to a sixth.
    assert judge.standard_error() == pytest.approx(0.0354, rel=0.3)


def test_the_standard_error_of_a_perfect_detector_is_none():
    judge = evaluator(BOX)
    assert judge.standard_error() is None
    judge.add(480, 640, BOX, np.array([1]), np.array([1e4]), np.array([False]), BOX, [1], [0.5])
    assert judge.standard_error() == 0.0

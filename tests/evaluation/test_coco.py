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
    metrics = evaluator(np.zeros((0, 4)), classes=[], scores=[]).metrics()
    assert metrics == dict.fromkeys(METRICS, 0.0)


def test_a_crowd_is_no_miss():
    judge = evaluator(np.zeros((0, 4)), classes=[], scores=[], crowd=[True])
    judge.add(480, 640, BOX, np.array([1]), np.array([1e4]), np.array([False]), BOX, [1], [0.5])
    assert judge.metrics()[MAP] == pytest.approx(1.0)

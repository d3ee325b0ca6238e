from mnasdet.evaluation import metric_text
from mnasdet.evaluation.baseline import BASELINE_AP50, BASELINE_MAP
from mnasdet.evaluation.coco import AP50, MAP


def test_minus_one_is_explained():
    metrics = {
        MAP: 0.25,
        AP50: 0.5,
        "DetectionBoxes_Precision/mAP (large)": -1.0,
        "DetectionBoxes_Recall/AR@100 (small)": -1.0,
        "DetectionBoxes_PerformanceByCategory/mAP/cat": -1.0,
        "DetectionBoxes_PerformanceByCategory/mAP/a dog": 0.125,
        "step": 40,
        "Loss/total_loss": -1.0,
    }
    assert list(metric_text.lines(metrics)) == [
        "DetectionBoxes_Precision/mAP = 0.2500",
        "DetectionBoxes_Precision/mAP@.50IOU = 0.5000",
        "DetectionBoxes_Precision/mAP (large) = - (no large objects, over 96² pixels)",
        "DetectionBoxes_Recall/AR@100 (small) = - (no small objects, under 32² pixels)",
        "DetectionBoxes_PerformanceByCategory/mAP/cat = - (no objects of this class)",
        "DetectionBoxes_PerformanceByCategory/mAP/a dog = 0.1250",
        "step = 40",
        "Loss/total_loss = -1.0000",
    ]


def test_the_baseline_is_judged_in_the_last_line():
    metrics = {MAP: 0.21, AP50: 0.5, BASELINE_MAP: 0.19, BASELINE_AP50: 0.5}
    assert list(metric_text.lines(metrics))[-1].startswith("Hardly better than one fixed box")


def test_a_set_without_objects():
    assert metric_text.text(MAP, -1.0) == "- (no objects to find)"

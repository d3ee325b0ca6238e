from mnasdet.evaluation import metric_text
from mnasdet.evaluation.baseline import BASELINE_AP50, BASELINE_MAP
from mnasdet.evaluation.coco import AP50, BY_CATEGORY, MAP, METRICS, class_metric


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


def test_all_metrics_of_classes_are_a_table():
    metrics = {MAP: 0.25, f"{BY_CATEGORY}a dog": 0.1, f"{BY_CATEGORY}cat/2": -1.0}
    for number, metric in enumerate(METRICS):
        metrics[class_metric(metric, "a dog")] = number / 10000
        metrics[class_metric(metric, "cat/2")] = -1.0
    metrics["step"] = 40
    assert list(metric_text.lines(metrics)) == [
        "DetectionBoxes_Precision/mAP = 0.2500",
        "step = 40",
        "           AP    AP50    AP75     APs     APm     APl     AR1    AR10      AR     ARs"
        "     ARm     ARl",
        "a dog  0.0000  0.0001  0.0002  0.0003  0.0004  0.0005  0.0006  0.0007  0.0008  0.0009"
        "  0.0010  0.0011",
        "cat/2       -       -       -       -       -       -       -       -       -       -"
        "       -       -",
    ]
    assert metric_text.groups(metrics).others == {"step": 40}


def test_names_of_classes_cannot_command_a_terminal():
    metrics = {f"{BY_CATEGORY}a\x1b[1m\nb": 0.5}
    assert list(metric_text.lines(metrics)) == [
        "DetectionBoxes_PerformanceByCategory/mAP/a\\x1b[1m b = 0.5000"
    ]
    metrics |= {class_metric(metric, "a\x1b\nb"): 0.5 for metric in METRICS}
    assert list(metric_text.lines(metrics))[-1].startswith("a\\x1b b  0.5000  0.5000")


def test_the_names_of_one_class_are_the_od_apis():
    assert class_metric(AP50, "cat") == "DetectionBoxes_Precision mAP@.50IOU ByCategory/cat"
    assert (
        class_metric("DetectionBoxes_Recall/AR@100 (small)", "a/b")
        == "DetectionBoxes_Recall AR@100 (small) ByCategory/a/b"
    )


def test_the_baseline_is_judged_in_the_last_line():
    metrics = {MAP: 0.21, AP50: 0.5, BASELINE_MAP: 0.19, BASELINE_AP50: 0.5}
    assert list(metric_text.lines(metrics))[-1].startswith("Hardly better than one fixed box")


def test_a_set_without_objects():
    assert metric_text.text(MAP, -1.0) == "- (no objects to find)"

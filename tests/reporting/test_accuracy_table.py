from mnasdet.evaluation.baseline import BASELINE_AP50, BASELINE_MAP
from mnasdet.evaluation.coco import AP50, BY_CATEGORY, MAP
from mnasdet.reporting import accuracy_table

LARGE = "DetectionBoxes_Precision/mAP (large)"


def test_figures_under_short_names_and_what_is_absent_in_words():
    html = accuracy_table.content(
        {MAP: 0.25, LARGE: -1.0, "step": 40, "best": {MAP: 0.3}}, "A set."
    )
    assert "<dt>mAP</dt><dd>0.2500</dd>" in html
    assert "<dt>mAP (large)</dt><dd>- (no large objects, over 96² pixels)</dd>" in html
    assert "<dt>step</dt><dd>40</dd>" in html
    assert "0.3" not in html
    assert "A set." in html
    assert "verdict" not in html


def test_a_model_that_is_level_with_the_baseline_stands_out():
    metrics = {MAP: 0.215, AP50: 0.555, BASELINE_MAP: 0.194, BASELINE_AP50: 0.552}
    html = accuracy_table.content(metrics)
    assert '<p class="verdict level">Hardly better than one fixed box per class' in html
    assert '<p class="verdict">Better' in accuracy_table.content(metrics | {MAP: 0.4})


def test_many_classes_are_folded_away():
    def content(count):
        return accuracy_table.content(
            {MAP: 0.5} | {f"{BY_CATEGORY}c{n}": 0.5 for n in range(count)}
        )

    assert "<details>" not in content(20)
    assert "mAP by class" in content(20)
    assert "<summary>mAP of 21 classes</summary>" in content(21)


def test_nothing():
    assert accuracy_table.content(None) == accuracy_table.content({}) == ""

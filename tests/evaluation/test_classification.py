import numpy as np
import pytest
from sklearn.metrics import recall_score, top_k_accuracy_score

from mnasdet.errors import DataError
from mnasdet.evaluation import metric_text, objectives
from mnasdet.evaluation.classification import (
    BASELINE,
    RECALL,
    TOP_1,
    TOP_5,
    ClassificationEvaluator,
    verdict,
)

NAMES = {class_id: f"kind {class_id}" for class_id in range(1, 11)}


def judged(classes, probabilities, batch_size=7, **options):
    """The metrics of probabilities [images, classes], in batches."""
    evaluator = ClassificationEvaluator(NAMES)
    for start in range(0, len(classes), batch_size):
        part = probabilities[start : start + batch_size]
        best = np.argsort(-part, axis=1)[:, :5] + 1
        evaluator.add({"class": classes[start : start + batch_size]}, {"classes": best})
    return evaluator.metrics(**options)


@pytest.fixture
def predicted():
    random = np.random.default_rng(0)
    classes = random.integers(1, 10, 60)  # None of the last class.
    probabilities = random.uniform(size=(60, 10)) + 0.5 * np.eye(10)[classes - 1]
    return classes, probabilities


def test_as_scikit_learn_counts(predicted):
    classes, probabilities = predicted
    metrics = judged(*predicted)
    labels = range(1, 11)
    for k, name in ((1, TOP_1), (5, TOP_5)):
        expected = top_k_accuracy_score(classes, probabilities, k=k, labels=labels)
        assert metrics[name] == pytest.approx(expected)
    assert set(metrics) == {"Classification/top_1", "Classification/top_5"}
    # A search maximises this metric.
    assert objectives.objective("classification") == TOP_1


def test_recall_of_every_class(predicted):
    classes, probabilities = predicted
    metrics = judged(*predicted, per_category=True)
    expected = recall_score(
        classes, probabilities.argmax(axis=1) + 1, labels=range(1, 10), average=None
    )
    recalls = [metrics[f"{RECALL}kind {class_id}"] for class_id in range(1, 10)]
    np.testing.assert_allclose(recalls, expected)
    assert metrics[f"{RECALL}kind 10"] == -1
    text = "\n".join(metric_text.lines(metrics))
    assert f"{RECALL}kind 10 = - (no images of this class)" in text


def test_the_baseline_is_the_share_of_the_most_frequent_class(predicted):
    classes, _ = predicted
    metrics = judged(*predicted, with_baseline=True)
    assert metrics[BASELINE] == max(np.mean(classes == one) for one in classes)


def test_with_less_than_five_classes_all_are_among_the_best():
    evaluator = ClassificationEvaluator({1: "a", 2: "b"})
    evaluator.add({"class": [1, 2]}, {"classes": [[1, 2], [1, 2]]})
    assert evaluator.metrics() == {TOP_1: 0.5, TOP_5: 1.0}


def test_a_class_that_is_not_among_the_best_is_no_hit():
    evaluator = ClassificationEvaluator({1: "a", 2: "b", 3: "c"})
    evaluator.add({"class": [3]}, {"classes": [[1, 2]]})
    assert evaluator.metrics()[TOP_5] == 0


def test_an_evaluation_set_without_images():
    with pytest.raises(DataError, match="the evaluation set has no images"):
        ClassificationEvaluator(NAMES).metrics()


@pytest.mark.parametrize(
    ("top_1", "baseline", "start"),
    [
        (0.97, 0.11, "Better than always naming the most frequent class: top-1 0.970 against 0.11"),
        (0.14, 0.11, "Hardly better than always naming the most frequent class: top-1 0.140"),
        (1.0, 0.98, "Better than"),
    ],
)
def test_verdict(top_1, baseline, start):
    metrics = {TOP_1: top_1, BASELINE: baseline}
    assert verdict(metrics).startswith(start)
    assert list(metric_text.lines(metrics))[-1] == verdict(metrics)


def test_no_verdict_without_a_baseline():
    assert verdict({TOP_1: 0.5}) == ""

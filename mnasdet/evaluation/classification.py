"""Judges classifiers: how often the right class is the best, or among the best five."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mnasdet.errors import DataError

TOP_1 = "Classification/top_1"
TOP_5 = "Classification/top_5"

# The share of a class's images for which it is the best.
RECALL = "ClassificationByCategory/recall/"

# The baseline: always naming the most frequent class of the evaluation set.
BASELINE = "MostFrequentClass/top_1"

# The rank of a class that is not among the best.
_MISSED = 1_000_000

# A first training that is above the baseline by this much has learnt something.
_MARGIN = 0.05


class ClassificationEvaluator:
    """An Evaluator of classes."""

    def __init__(self, categories: Mapping[int, str]):
        """Takes `categories`: id, from 1, to name."""
        self._categories = dict(categories)
        self._classes: list[np.ndarray] = []
        self._ranks: list[np.ndarray] = []

    def add(self, batch: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        """Adds the images of a batch, of which only `class` [batch] is looked at, with the
        `classes` [batch, best] that were found in them."""
        truth, best = np.asarray(batch["class"]), np.asarray(predictions["classes"])
        hits = best == truth[:, None]
        self._classes.append(truth)
        self._ranks.append(np.where(hits.any(axis=1), hits.argmax(axis=1), _MISSED))

    def metrics(
        self,
        *,
        per_category: bool = False,
        all_per_category: bool = False,
        with_baseline: bool = False,
    ) -> dict[str, float]:
        """Returns top-1 and top-5.

        Args:
          per_category: add the recall of every class; -1 where it has no image. There are no
            other metrics of a class for all_per_category.
          with_baseline: add what naming the most frequent class reaches.

        Raises:
          DataError: no image was added.
        """
        if not self._classes:
            raise DataError("the evaluation set has no images")
        classes, ranks = np.concatenate(self._classes), np.concatenate(self._ranks)
        metrics = {TOP_1: float((ranks < 1).mean()), TOP_5: float((ranks < 5).mean())}
        if per_category:
            metrics |= {
                f"{RECALL}{name}": _share(ranks[classes == class_id] < 1)
                for class_id, name in self._categories.items()
            }
        if with_baseline:
            metrics[BASELINE] = float(np.bincount(classes).max() / len(classes))
        return metrics


def verdict(metrics: Mapping[str, float]) -> str:
    """Returns a sentence that compares a classifier with the most frequent class; "" where the
    metrics have no baseline."""
    if BASELINE not in metrics:
        return ""
    figures = f"top-1 {metrics[TOP_1]:.3f} against {metrics[BASELINE]:.3f}"
    # At most 1: beside a class that is nearly always right, a perfect model counts.
    if metrics[TOP_1] >= min(metrics[BASELINE] + _MARGIN, 1.0):
        return f"Better than always naming the most frequent class: {figures}."
    return (
        f"Hardly better than always naming the most frequent class: {figures}; less than "
        f"{_MARGIN:g} above counts as level."
    )


def _share(hits: np.ndarray) -> float:
    # As COCO's metrics say what cannot be measured.
    return float(hits.mean()) if len(hits) else -1.0

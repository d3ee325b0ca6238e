"""The metric that counts for each kind of model; more is better. No TensorFlow."""

from __future__ import annotations

# By kind, the member of `model` that a config sets.
_OBJECTIVES = {
    "ssd": "DetectionBoxes_Precision/mAP",
    "faster_rcnn": "DetectionBoxes_Precision/mAP",
    "classification": "Classification/top_1",
}

# Searches of version 0.1 went by this one and do not say so.
FIRST = _OBJECTIVES["ssd"]


def objective(kind: str) -> str:
    """Returns the name of the metric by which a search judges models of a kind."""
    return _OBJECTIVES.get(kind, FIRST)


def finds_boxes(kind: str) -> bool:
    """Returns whether models of a kind are detectors, which have pictures and curves to show."""
    return objective(kind) == FIRST

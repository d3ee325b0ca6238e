"""Metrics as lines of text, in which pycocotools' -1 has a meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mnasdet.evaluation import baseline, classification
from mnasdet.evaluation.coco import BY_CATEGORY, METRICS

# COCO's sizes: the area of an object in square pixels of the original picture.
_SIZES = {
    "(small)": "no small objects, under 32² pixels",
    "(medium)": "no medium objects, 32² to 96² pixels",
    "(large)": "no large objects, over 96² pixels",
}


def display_name(objective: str) -> str:
    """Returns the name that people have for an objective: "mAP", "top-1"."""
    return objective.partition("/")[2].replace("_", "-")


def lines(metrics: Mapping[str, float]) -> Iterator[str]:
    """Yields "NAME = VALUE" for every metric, and how the model compares with one that does not
    look at the image."""
    for name, value in metrics.items():
        yield f"{name} = {text(name, value)}"
    for judge in (baseline.verdict, classification.verdict):
        if verdict := judge(metrics):
            yield verdict


class Groups(NamedTuple):
    """The metrics of an evaluation as text, by short names."""

    overall: dict[str, str]
    by_class: dict[str, str]
    others: dict[str, Any]


def groups(metrics: Mapping[str, Any]) -> Groups:
    """Returns the metrics over all classes, those of single classes, and what else there is.

    Constant boxes are left out: `baseline.verdict` tells of them.
    """
    by_class = {
        name.removeprefix(BY_CATEGORY): text(name, value)
        for name, value in metrics.items()
        if name.startswith(BY_CATEGORY)
    }
    overall = {
        name.rpartition("/")[2]: text(name, metrics[name]) for name in METRICS if name in metrics
    }
    others = {name: value for name, value in metrics.items() if not _is_of_coco(name)}
    return Groups(overall, by_class, others)


def text(name: str, value: float) -> str:
    """Returns a metric with four decimals, or what there is not where it is -1."""
    if not isinstance(value, float):
        return str(value)
    if value != -1:
        return f"{value:.4f}"
    if name.startswith(classification.RECALL):
        return "- (no images of this class)"
    return f"- ({_absent(name)})" if _is_of_coco(name) else f"{value:.4f}"


def _is_of_coco(name: str) -> bool:
    return name in METRICS or name.startswith((BY_CATEGORY, "ConstantBoxes_"))


def _absent(name: str) -> str:
    if name.startswith(BY_CATEGORY):
        return "no objects of this class"
    for size, meaning in _SIZES.items():
        if name.endswith(size):
            return meaning
    return "no objects to find"

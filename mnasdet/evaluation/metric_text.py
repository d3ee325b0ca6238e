"""Metrics as lines of text, in which pycocotools' -1 has a meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from mnasdet import terminal
from mnasdet.evaluation import baseline, classification
from mnasdet.evaluation.coco import BY_CATEGORY, METRICS, class_metric

# COCO's sizes: the area of an object in square pixels of the original picture.
_SIZES = {
    "(small)": "no small objects, under 32² pixels",
    "(medium)": "no medium objects, 32² to 96² pixels",
    "(large)": "no large objects, over 96² pixels",
}

# The columns of `table`: COCO's own short names.
_COLUMNS = dict(
    zip(
        METRICS,
        ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR", "ARs", "ARm", "ARl"),
        strict=True,
    )
)
# By the beginning of the name of a metric of one class.
_OF_CLASS = {class_metric(name, ""): name for name in METRICS}


def display_name(objective: str) -> str:
    """Returns the name that people have for an objective: "mAP", "top-1"."""
    return objective.partition("/")[2].replace("_", "-")


def lines(metrics: Mapping[str, float]) -> Iterator[str]:
    """Yields "NAME = VALUE" for every metric, a table of the classes where there are all metrics of
    them, and how the model compares with one that does not look at the image; all printable."""
    by_class = table(metrics)
    for name, value in metrics.items():
        # The first column of the table.
        if not (name.startswith(tuple(_OF_CLASS)) or (by_class and name.startswith(BY_CATEGORY))):
            yield terminal.one_line(f"{name} = {text(name, value)}")
    names = {name: terminal.one_line(name) for name in by_class}
    width = max(map(len, names.values()), default=0)
    for number, (name, values) in enumerate(by_class.items()):
        if not number:
            yield "  ".join([" " * width, *(f"{column:>6}" for column in values)])
        yield "  ".join([f"{names[name]:{width}}", *(f"{value:>6}" for value in values.values())])
    for judge in (baseline.verdict, classification.verdict):
        if verdict := judge(metrics):
            yield verdict


def table(metrics: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Returns the columns of every class, AP to ARl, as text; "-" for what cannot be measured.

    AR is that of 100 detections an image; s, m and l are small, medium and large objects.
    """
    rows: dict[str, dict[str, str]] = {}
    for name, value in metrics.items():
        start, by, class_name = name.partition(" ByCategory/")
        if metric := _OF_CLASS.get(start + by):
            row = rows.setdefault(class_name, {})
            row[_COLUMNS[metric]] = "-" if value == -1 else f"{value:.4f}"
    return rows


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
    return name in METRICS or name.startswith((BY_CATEGORY, "ConstantBoxes_", *_OF_CLASS))


def _absent(name: str) -> str:
    if name.startswith(BY_CATEGORY):
        return "no objects of this class"
    for size, meaning in _SIZES.items():
        if name.endswith(size):
            return meaning
    return "no objects to find"

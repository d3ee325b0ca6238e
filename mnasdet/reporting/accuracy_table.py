"""The metrics of the retrained detector as tables in HTML."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from mnasdet.evaluation import baseline, metric_text
from mnasdet.evaluation.coco import BY_CATEGORY, METRICS
from mnasdet.reporting import page

# More classes are folded away.
_MOST_CLASSES = 20


def content(metrics: Mapping[str, float] | None, set_: str = "") -> str:
    """Returns the comparison with constant boxes, COCO's metrics and the mAP of every class; ""
    without metrics.

    Args:
      metrics: also those of `baseline.metrics`, if there are any.
      set_: the evaluation set in words.
    """
    if not metrics:
        return ""
    by_class = {
        name.removeprefix(BY_CATEGORY): metric_text.text(name, value)
        for name, value in metrics.items()
        if name.startswith(BY_CATEGORY)
    }
    overall = {
        name.rpartition("/")[2]: metric_text.text(name, metrics[name])
        for name in METRICS
        if name in metrics
    }
    others = {
        name: value
        for name, value in metrics.items()
        if name not in METRICS and not name.startswith((BY_CATEGORY, "ConstantBoxes_"))
    }
    kind = "verdict level" if _is_level(metrics) else "verdict"
    verdict = baseline.verdict(metrics)
    return (
        (page.note(set_) if set_ else "")
        + (f'<p class="{kind}">{escape(verdict)}</p>' if verdict else "")
        + page.details(overall | others)
        + _classes(by_class)
    )


def _is_level(metrics: Mapping[str, float]) -> bool:
    return bool(baseline.verdict(metrics)) and baseline.is_level(metrics)


def _classes(by_class: Mapping[str, str]) -> str:
    if not by_class:
        return ""
    table = page.details({"mAP by class": by_class})
    if len(by_class) <= _MOST_CLASSES:
        return table
    return f"<details><summary>mAP of {len(by_class)} classes</summary>{table}</details>"

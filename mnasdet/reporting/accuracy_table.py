"""The metrics of the retrained detector as tables in HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from mnasdet.evaluation import baseline, metric_text
from mnasdet.evaluation.coco import BY_CATEGORY, METRICS
from mnasdet.reporting import page

# More classes are folded away.
_MOST_CLASSES = 20


def content(metrics: Mapping[str, float] | None, set_: str = "") -> Markup:
    """Returns the comparison with constant boxes, COCO's metrics and the mAP of every class;
    nothing without metrics.

    Args:
      metrics: also those of `baseline.metrics`, if there are any.
      set_: the evaluation set in words.
    """
    if not metrics:
        return Markup()
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
        if name not in METRICS
        and not name.startswith((BY_CATEGORY, "ConstantBoxes_"))
        # metrics.json repeats itself for the best checkpoint.
        and not isinstance(value, Mapping)
    }
    kind = "verdict level" if _is_level(metrics) else "verdict"
    verdict = baseline.verdict(metrics)
    named: dict[str, Any] = {**overall, **others}
    folded = Markup()
    if len(by_class) > _MOST_CLASSES:
        folded = Markup("<details><summary>mAP of {} classes</summary>{}</details>").format(
            len(by_class), page.details(by_class)
        )
    elif by_class:
        named["mAP by class"] = by_class
    told = Markup('<p class="{}">{}</p>').format(kind, verdict) if verdict else Markup()
    note = page.note(set_) if set_ else Markup()
    return note + told + page.details(named) + folded


def _is_level(metrics: Mapping[str, float]) -> bool:
    return bool(baseline.verdict(metrics)) and baseline.is_level(metrics)

"""The metrics of the retrained model as tables in HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from mnasdet.evaluation import baseline, metric_text
from mnasdet.reporting import page
from mnasdet.search.axes import DEFAULT

# More classes are folded away.
_MOST_CLASSES = 20


def content(
    metrics: Mapping[str, float] | None, set_: str = "", metric: str = DEFAULT.accuracy
) -> Markup:
    """Returns the comparison with constant boxes, the metrics over all classes and of every class.

    Args:
      metrics: also those of `baseline.metrics`, if there are any.
      set_: the evaluation set in words.
      metric: what people call the metric of a class.
    """
    if not metrics:
        return Markup()
    # metrics.json repeats itself for the best checkpoint.
    own = {name: value for name, value in metrics.items() if not isinstance(value, Mapping)}
    overall, by_class, others = metric_text.groups(own)
    kind = "verdict level" if _is_level(metrics) else "verdict"
    verdict = baseline.verdict(metrics)
    named: dict[str, Any] = {**overall, **others}
    folded = Markup()
    if len(by_class) > _MOST_CLASSES:
        folded = Markup("<details><summary>{} of {} classes</summary>{}</details>").format(
            metric, len(by_class), page.details(by_class)
        )
    elif by_class:
        named[f"{metric} by class"] = by_class
    told = Markup('<p class="{}">{}</p>').format(kind, verdict) if verdict else Markup()
    note = page.note(set_) if set_ else Markup()
    return note + told + page.details(named) + folded


def _is_level(metrics: Mapping[str, float]) -> bool:
    return bool(baseline.verdict(metrics)) and baseline.is_level(metrics)

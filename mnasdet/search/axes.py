"""The two things that a search weighs against each other, by name and unit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mnasdet import search_stages
from mnasdet.evaluation import objectives
from mnasdet.protos import pipeline_pb2


@dataclass(frozen=True)
class Axes:
    """Accuracy and cost; by default those of the first searches, which name neither.

    Attributes:
      objective: the metric that is the accuracy.
      unit: of the cost.
    """

    objective: str = objectives.FIRST
    unit: str = "ms"

    @property
    def accuracy(self) -> str:
        """Returns the name that people have for the metric."""
        from mnasdet.evaluation import metric_text  # Loads pycocotools.

        return metric_text.display_name(self.objective)

    @property
    def cost(self) -> str:
        """Returns the name that people have for the cost."""
        return "latency" if self.unit == "ms" else self.unit


# The axes of a search that does not name them.
DEFAULT = Axes()


def from_config(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> Axes:
    """Returns the axes of a search that a config asks for: of two stages, those they share."""
    from mnasdet.search import latency  # Loads TFLite.

    kind = pipeline.model.WhichOneof("model")
    source = search_stages.common_latency(pipeline.search_config)
    return Axes(objectives.objective(kind or ""), latency.unit(source))


def from_description(description: Mapping[str, Any] | None) -> Axes:
    """Returns the axes that search.json names."""
    held = description or {}
    # Version 0.1 had another name for the unit, and at first none.
    unit = held.get("unit", held.get("latency_unit", Axes.unit))
    return Axes(held.get("objective", Axes.objective), unit)

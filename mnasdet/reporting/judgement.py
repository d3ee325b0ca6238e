"""The results of a detector on a whole evaluation set, for the report. Needs no TensorFlow."""

from __future__ import annotations

from dataclasses import dataclass

from mnasdet.reporting.pictures import Example, Threshold


@dataclass(frozen=True)
class Judgement:
    """The results of a detector on an evaluation set.

    Attributes:
      examples: the first pictures with something in them.
      threshold: the score with the highest F1 over all pictures.
      metrics: COCO's, with the mAP of every class and the best constant boxes.
      standard_error: of mAP, by the choice of the pictures; None where it is unknown.
      num_images: of the set; `num_objects` without crowds.
    """

    examples: list[Example]
    threshold: Threshold
    metrics: dict[str, float]
    standard_error: float | None
    num_images: int
    num_objects: int

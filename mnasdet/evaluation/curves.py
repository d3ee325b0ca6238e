"""Precision and recall at every score, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Enough to compute AP again to 1e-6.
_DECIMALS = 6


@dataclass(frozen=True)
class Curves:
    """Precision at given recalls, as pycocotools computes it: of objects of all sizes, with at most
    100 detections an image.

    Attributes:
      names: [classes], of those that have objects.
      ious: [ious], the least IoU of a detection with the object that it finds.
      recalls: [recalls] in [0, 1].
      precisions: [classes, ious, recalls]; the best at this recall or a higher one, and 0 at
        recalls that are not reached. The mean over the recalls is the AP of a class.
      scores: [classes, ious, recalls], of the detection at which the recall is reached; 0 where it
        is not.
    """

    names: Sequence[str]
    ious: Sequence[float]
    recalls: np.ndarray
    precisions: np.ndarray
    scores: np.ndarray

    def mean(self) -> np.ndarray:
        """Returns the precision over all classes, [ious, recalls]; its mean is the mAP."""
        return self.precisions.mean(axis=0)

    def to_json(self) -> dict[str, Any]:
        """Returns recall, and precision and score by class and IoU, "0.50" to "0.95"."""
        return {
            "recall": _rounded(self.recalls),
            "classes": {
                name: {
                    f"{iou:.2f}": {"precision": _rounded(precision), "score": _rounded(score)}
                    for iou, precision, score in zip(self.ious, of_class, scores, strict=True)
                }
                for name, of_class, scores in zip(
                    self.names, self.precisions, self.scores, strict=True
                )
            },
        }


def _rounded(values: np.ndarray) -> list[float]:
    return np.round(values, _DECIMALS).tolist()

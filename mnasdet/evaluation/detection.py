"""Detects objects in pictures of any size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from mnasdet.data import preprocessing
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.evaluation.detection_evaluator import found_in_image


@dataclass(frozen=True)
class Detections:
    """The objects that were found in one picture.

    Attributes:
      boxes: [n, 4] (ymin, xmin, ymax, xmax) in pixels of the upright picture, best first.
      classes: [n] ids from 1; `scores` [n] in [0, 1].
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray

    def above(self, score: float) -> Detections:
        """Returns the detections with at least a score."""
        kept = self.scores >= score
        return Detections(self.boxes[kept], self.classes[kept], self.scores[kept])


def detect(
    image: np.ndarray,
    resizer: ImageResizer | None,
    detector: Callable[[tf.Tensor], Mapping[str, Any]],
) -> Detections:
    """Detects objects in one picture.

    Args:
      image: uint8 [height, width, 3].
      resizer: of the detector's pipeline config; a padding that it adds is taken off again. None
        where the detector takes pictures as they are.
      detector: images [1, height, width, 3], in [-1, 1], to the detections of `PostProcessing`.
    """
    resized, extent = tf.constant(image), np.ones(2)
    if resizer is not None:
        resized, of_image = preprocessing.preprocess(resized, resizer)
        extent = of_image.numpy()
    found = {name: np.asarray(value)[0] for name, value in detector(resized[None]).items()}
    boxes, kept = found_in_image(found, extent)
    height, width = image.shape[:2]
    scores = found["detection_scores"][kept]
    best_first = np.argsort(-scores, kind="stable")
    return Detections(
        (boxes[kept] * [height, width, height, width])[best_first],
        found["detection_classes"][kept].astype(int)[best_first],
        scores[best_first],
    )


def describe(found: Detections, names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Returns the detections in COCO's format of results, with the names of the classes.

    `bbox` is (x, y, width, height) in pixels.
    """
    # Rounded ahead of the difference: x + width is then the rounded right edge.
    corners = found.boxes[:, [1, 0, 3, 2]].round(2)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).round(2)
    return [
        {
            "category_id": int(class_id),
            "category": class_name(names, class_id),
            "score": round(float(score), 4),
            "bbox": box.tolist(),
        }
        for class_id, score, box in zip(found.classes, found.scores, boxes, strict=True)
    ]


def class_name(names: Mapping[int, str], class_id: int) -> str:
    """Returns the name of a class, "class 7" for one without."""
    return names.get(int(class_id), f"class {int(class_id)}")

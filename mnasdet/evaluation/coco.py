"""COCO detection metrics, judged by pycocotools, under the OD API's names."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

# The order of COCOeval.stats.
METRICS = (
    "DetectionBoxes_Precision/mAP",
    "DetectionBoxes_Precision/mAP@.50IOU",
    "DetectionBoxes_Precision/mAP@.75IOU",
    "DetectionBoxes_Precision/mAP (small)",
    "DetectionBoxes_Precision/mAP (medium)",
    "DetectionBoxes_Precision/mAP (large)",
    "DetectionBoxes_Recall/AR@1",
    "DetectionBoxes_Recall/AR@10",
    "DetectionBoxes_Recall/AR@100",
    "DetectionBoxes_Recall/AR@100 (small)",
    "DetectionBoxes_Recall/AR@100 (medium)",
    "DetectionBoxes_Recall/AR@100 (large)",
)
MAP = METRICS[0]


class CocoEvaluator:
    """Collects images and computes the metrics once at the end."""

    def __init__(self, categories: dict[int, str]):
        """`categories`: id, from 1, to name."""
        self._categories = categories
        self._images: list[dict] = []
        self._annotations: list[dict] = []
        self._detections: list[dict] = []

    def add(
        self,
        height: int,
        width: int,
        boxes: np.ndarray,
        classes: np.ndarray,
        areas: np.ndarray,
        is_crowd: np.ndarray,
        detected_boxes: np.ndarray,
        detected_classes: np.ndarray,
        scores: np.ndarray,
    ) -> None:
        """Adds one image.

        Args:
          height: of the original image in pixels, as `width`.
          boxes: [boxes, 4] (ymin, xmin, ymax, xmax), normalised; the truth.
          classes: [boxes], from 1.
          areas: [boxes], square pixels of the original image, by which COCO tells sizes apart.
          is_crowd: [boxes].
          detected_boxes: [detections, 4] like `boxes`.
          detected_classes: [detections], from 1.
          scores: [detections].
        """
        image_id = len(self._images) + 1
        self._images.append({"id": image_id, "height": height, "width": width})
        for box, category, area, crowd in zip(
            _xywh(boxes, height, width), classes, areas, is_crowd, strict=True
        ):
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image_id,
                    "bbox": box,
                    "category_id": int(category),
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
            )
        for box, category, score in zip(
            _xywh(detected_boxes, height, width), detected_classes, scores, strict=True
        ):
            self._detections.append(
                {
                    "image_id": image_id,
                    "bbox": box,
                    "category_id": int(category),
                    "score": float(score),
                }
            )

    def metrics(self, per_category: bool = False) -> dict[str, float]:
        """The twelve COCO metrics; -1 where there is nothing to measure.

        Args:
          per_category: add DetectionBoxes_PerformanceByCategory/mAP/NAME for every class.
        """
        if not self._detections:
            return dict.fromkeys(METRICS, 0.0)
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {
                "images": self._images,
                "annotations": self._annotations,
                "categories": [{"id": i, "name": n} for i, n in self._categories.items()],
            }
            truth.createIndex()
            evaluation = COCOeval(truth, truth.loadRes(self._detections), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        metrics = dict(zip(METRICS, map(float, evaluation.stats), strict=True))
        if per_category:
            metrics |= self._by_category(evaluation)
        return metrics

    def _by_category(self, evaluation: COCOeval) -> dict[str, float]:
        # [thresholds, recalls, categories, areas, detections]: all areas, 100 detections.
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        by_category = {}
        for place, category in enumerate(evaluation.params.catIds):
            measured = precision[:, :, place][precision[:, :, place] > -1]
            name = f"DetectionBoxes_PerformanceByCategory/mAP/{self._categories[category]}"
            by_category[name] = float(measured.mean()) if measured.size else -1.0
        return by_category


def _xywh(boxes: np.ndarray, height: int, width: int) -> Sequence[list[float]]:
    """COCO's (x, y, width, height) in pixels."""
    scaled = np.asarray(boxes, np.float64) * (height, width, height, width)
    ymin, xmin, ymax, xmax = scaled.T if len(scaled) else np.zeros((4, 0))
    return np.stack([xmin, ymin, xmax - xmin, ymax - ymin], axis=1).tolist()

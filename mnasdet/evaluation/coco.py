"""COCO detection metrics, judged by pycocotools, under the OD API's names."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mnasdet.evaluation.curves import Curves

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
AP50 = METRICS[1]
BY_CATEGORY = "DetectionBoxes_PerformanceByCategory/mAP/"

# Places of the IoUs 0.5 and 0.75 among COCO's 0.5, 0.55, ... 0.95.
_HALF, _THREE_QUARTERS = 0, 5


class CocoEvaluator:
    """Collects images and computes the metrics once at the end.

    Attributes:
      categories: class id, from 1, to name.
      images, annotations, detections: of the images so far, in COCO's formats. Images are counted
        from 1; their `source_id` is the data set's own name for them.
    """

    def __init__(self, categories: dict[int, str]):
        self.categories = categories
        self._evaluation: COCOeval | None = None
        self.images: list[dict] = []
        self.annotations: list[dict] = []
        self.detections: list[dict] = []

    @property
    def num_objects(self) -> int:
        """Counts the boxes that a detector could find: all but crowds."""
        return sum(not annotation["iscrowd"] for annotation in self.annotations)

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
        source_id: str = "",
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
          source_id: the data set's id of the image.
        """
        self._evaluation = None
        image_id = len(self.images) + 1
        self.images.append(
            {"id": image_id, "height": height, "width": width, "source_id": source_id}
        )
        for box, category, area, crowd in zip(
            _xywh(boxes, height, width), classes, areas, is_crowd, strict=True
        ):
            # Ids from 1: pycocotools takes a match with the id 0 for none.
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
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
            self.detections.append(
                {
                    "image_id": image_id,
                    "bbox": box,
                    "category_id": int(category),
                    "score": float(score),
                }
            )

    def metrics(
        self, per_category: bool = False, all_per_category: bool = False
    ) -> dict[str, float]:
        """Computes the twelve COCO metrics; -1 where there is nothing to measure.

        Args:
          per_category: add DetectionBoxes_PerformanceByCategory/mAP/NAME for every class.
          all_per_category: add all twelve for every class, under the names of `class_metric`.
        """
        evaluation = self._judged()
        with _silence():
            evaluation.summarize()
        metrics = dict(zip(METRICS, map(float, evaluation.stats), strict=True))
        of_classes = {
            self.categories[category]: _class_metrics(evaluation, place)
            for place, category in enumerate(evaluation.params.catIds)
        }
        if per_category:
            metrics |= {f"{BY_CATEGORY}{name}": own[MAP] for name, own in of_classes.items()}
        if all_per_category:
            metrics |= {
                class_metric(metric, name): value
                for name, own in of_classes.items()
                for metric, value in own.items()
            }
        return metrics

    def curves(self) -> Curves:
        """Returns the precision-recall curves of the classes that have objects."""
        evaluation = self._judged()
        params = evaluation.params
        # [thresholds, recalls, categories, areas, detections]: all areas, 100 detections.
        precisions = evaluation.eval["precision"][:, :, :, 0, -1].transpose(2, 0, 1)
        scores = evaluation.eval["scores"][:, :, :, 0, -1].transpose(2, 0, 1)
        # pycocotools has -1 wherever there is nothing to measure.
        measured = [place for place, own in enumerate(precisions) if own.max() >= 0]
        return Curves(
            [self.categories[params.catIds[place]] for place in measured],
            params.iouThrs.tolist(),
            params.recThrs,
            precisions[measured],
            scores[measured],
        )

    def standard_error(self, num_resamples: int = 20, seed: int = 0) -> float | None:
        """Estimates by how much mAP depends on which images the set happens to have.

        It is the standard deviation of mAP over sets of as many images, drawn from these with
        replacement (a bootstrap). What another seed of the training does is not in it.

        Returns:
          None for less than two images or nothing to find.
        """
        if len(self.images) < 2 or not self.num_objects:
            return None
        evaluation = self.judge(self.detections, sizes=False)
        # COCOeval lists its results by category, size and image.
        per_image = np.array(evaluation.evalImgs, object).reshape(-1, len(self.images))
        rng = np.random.default_rng(seed)
        maps = []
        for _ in range(num_resamples):
            drawn = rng.integers(len(self.images), size=len(self.images))
            evaluation.evalImgs = per_image[:, drawn].ravel().tolist()
            with _silence():
                evaluation.accumulate()
            maps.append(mean_precision(evaluation.eval["precision"]))
        # A draw of images without any object has no mAP.
        maps = [value for value in maps if value >= 0]
        return float(np.std(maps, ddof=1))

    def _judged(self) -> COCOeval:
        """Returns `judge` of the own detections, computed once for the images so far."""
        if self._evaluation is None:
            self._evaluation = self.judge(self.detections)
        return self._evaluation

    def judge(self, detections: Sequence[dict], sizes: bool = True) -> COCOeval:
        """Matches detections, in COCO's format, with the truth of all images, and accumulates.

        Args:
          sizes: tell small, medium and large objects apart as well, which takes four times as long.
        """
        with _silence():
            truth, found = COCO(), COCO()
            truth.dataset = {
                "images": self.images,
                "annotations": self.annotations,
                "categories": [{"id": i, "name": n} for i, n in self.categories.items()],
            }
            truth.createIndex()
            # COCO.loadRes takes no empty list.
            found = truth.loadRes(list(detections)) if detections else found
            evaluation = COCOeval(truth, found, "bbox")
            if not sizes:
                params = evaluation.params
                params.areaRng, params.areaRngLbl = params.areaRng[:1], params.areaRngLbl[:1]
                params.maxDets = params.maxDets[-1:]
            evaluation.evaluate()
            evaluation.accumulate()
        return evaluation


def class_metric(metric: str, name: str) -> str:
    """Returns the OD API's name of one of METRICS for one class."""
    return f"{metric.replace('/', ' ')} ByCategory/{name}"


def _class_metrics(evaluation: COCOeval, place: int) -> dict[str, float]:
    """Returns METRICS of one class, by its place among the evaluation's."""
    # [thresholds, recalls, areas, detections]; areas: all, small, medium, large.
    precision = evaluation.eval["precision"][:, :, place]
    # [thresholds, areas, detections]; detections: 1, 10, 100.
    recall = evaluation.eval["recall"][:, place]
    parts = [
        precision[:, :, 0, -1],
        precision[_HALF, :, 0, -1],
        precision[_THREE_QUARTERS, :, 0, -1],
        *(precision[:, :, area, -1] for area in (1, 2, 3)),
        *(recall[:, 0, most] for most in (0, 1, 2)),
        *(recall[:, area, -1] for area in (1, 2, 3)),
    ]
    return dict(zip(METRICS, map(mean_precision, parts), strict=True))


def mean_precision(precision: np.ndarray) -> float:
    """Returns the mean of the part of COCOeval's precision, or recall, that is measured; -1 for
    none."""
    measured = precision[precision > -1]
    return float(measured.mean()) if measured.size else -1.0


def _silence() -> contextlib.redirect_stdout:
    """Silences pycocotools, which prints what it does."""
    return contextlib.redirect_stdout(io.StringIO())


def _xywh(boxes: np.ndarray, height: int, width: int) -> Sequence[list[float]]:
    """Returns COCO's (x, y, width, height) in pixels."""
    scaled = np.asarray(boxes, np.float64) * (height, width, height, width)
    ymin, xmin, ymax, xmax = scaled.T if len(scaled) else np.zeros((4, 0))
    return np.stack([xmin, ymin, xmax - xmin, ymax - ymin], axis=1).tolist()

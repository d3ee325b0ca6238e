"""Judges detections by COCO's metrics, and beside them the best constant boxes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from absl import logging

from mnasdet.errors import DataError
from mnasdet.evaluation import baseline
from mnasdet.evaluation.coco import CocoEvaluator


class DetectionEvaluator:
    """An Evaluator of detections.

    Attributes:
      coco: the images, objects and detections so far.
    """

    def __init__(self, categories: Mapping[int, str]):
        """Takes the classes, id from 1 to name."""
        self.coco = CocoEvaluator(dict(categories))

    def add(self, batch: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        """Adds the images of a batch of `input_pipeline.evaluation_dataset`, with the detections of
        `PostProcessing` in them."""
        for example, found in zip(_unbatch(batch), _unbatch(predictions), strict=True):
            boxes, extent = int(example["num_boxes"]), example["extent"]
            detected, kept = found_in_image(found, extent)
            self.coco.add(
                int(example["height"]),
                int(example["width"]),
                of_image(example["boxes"][:boxes], extent),
                example["classes"][:boxes],
                example["area"][:boxes],
                example["is_crowd"][:boxes],
                detected[kept],
                found["detection_classes"][kept],
                found["detection_scores"][kept],
                _text(example.get("source_id", b"")),
            )

    def metrics(
        self,
        *,
        per_category: bool = False,
        all_per_category: bool = False,
        with_baseline: bool = False,
    ) -> dict[str, float]:
        """Returns COCO's metrics.

        Args:
          per_category: add the mAP of every class; all_per_category: all metrics of it.
          with_baseline: add what the best constant boxes reach (`baseline.metrics`). On sets of
            thousands of images this takes as long as a second evaluation.

        Raises:
          DataError: no image was added.
        """
        if not self.coco.images:
            raise DataError("the evaluation set has no images")
        # Ahead of the metrics, whose -1 or 0 it explains.
        self._warn_of_nothing()
        metrics = self.coco.metrics(per_category, all_per_category)
        return metrics | baseline.metrics(self.coco) if with_baseline else metrics

    def _warn_of_nothing(self) -> None:
        """Says why all metrics are -1 or 0."""
        if not self.coco.num_objects:
            logging.warning(
                "the evaluation set has no object%s: there is nothing to measure, and mAP is -1",
                " that is not a crowd" if self.coco.annotations else "",
            )
        elif not self.coco.detections:
            logging.warning(
                "the detector found nothing in %d images, and mAP is 0: no score reaches "
                "post_processing.batch_non_max_suppression.score_threshold",
                len(self.coco.images),
            )


def found_in_image(
    found: Mapping[str, np.ndarray], extent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Takes the padding off the detections of one image.

    Args:
      found: the detections of `PostProcessing`, without the batch.
      extent: of the image, from `preprocessing.preprocess`.

    Returns:
      All boxes, normalised to the image itself, and a mask of those that count: what was found in
      the padding alone, or outside of the image, is nothing.
    """
    boxes = of_image(found["detection_boxes"], extent)
    kept = np.arange(len(boxes)) < found["num_detections"]
    return boxes, kept & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)


def of_image(boxes: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Returns boxes of the network's input, padding and all, as boxes of the image itself."""
    return np.clip(boxes / np.tile(extent, 2), 0.0, 1.0)


def _text(source_id: Any) -> str:
    return bytes(source_id).decode("utf-8", "replace")


def _unbatch(batch: Mapping[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    """Yields the examples of a batch, without their pixels."""
    # Pixels are most of a batch, and the judges need none.
    arrays = {key: np.asarray(value) for key, value in batch.items() if key != "image"}
    for row in range(len(next(iter(arrays.values())))):
        yield {key: value[row] for key, value in arrays.items()}

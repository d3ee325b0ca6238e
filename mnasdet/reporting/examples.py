"""Judges a detector on its whole evaluation set, and keeps the first pictures to be shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from mnasdet.data import input_pipeline
from mnasdet.evaluation.detection_evaluator import (
    DetectionEvaluator,
    found_in_image,
    of_image,
)
from mnasdet.evaluation.evaluate import judged_on
from mnasdet.protos import pipeline_pb2
from mnasdet.reporting import pictures
from mnasdet.reporting.judgement import Judgement
from mnasdet.reporting.pictures import MOST_EXAMPLES, Example
from mnasdet.tasks import Task


class Collector:
    """An Evaluator of detections that also keeps what a report shows.

    Attributes:
      coco: the images, objects and detections so far.
    """

    def __init__(self, class_names: Mapping[int, str], count: int = MOST_EXAMPLES):
        """Takes the classes, id from 1 to name, and how many examples to keep; fewer are kept if
        fewer pictures have something in them."""
        self._evaluator = DetectionEvaluator(class_names)
        self.coco = self._evaluator.coco
        self._class_names = class_names
        self._count = count
        self._examples: list[Example] = []
        self._shown: list[Example] = []

    def add(self, batch: Mapping[str, Any], predictions: Mapping[str, Any]) -> None:
        """Adds a batch of `evaluation_set` with the detections in it."""
        batch, detections = _arrays(batch), _arrays(predictions)
        self._evaluator.add(batch, detections)
        of_batch = list(_examples(batch, detections, self._class_names))
        # All of them, without pixels: the threshold is chosen on the whole set.
        self._examples += of_batch
        for row in np.flatnonzero(batch["num_boxes"])[: self._count - len(self._shown)]:
            self._shown.append(_with_image(of_batch[row], batch, row))

    def metrics(self, **kind: bool) -> dict[str, float]:
        """Returns `DetectionEvaluator.metrics`."""
        return self._evaluator.metrics(**kind)

    def judgement(self, metrics: Mapping[str, float] | None = None) -> Judgement:
        """Returns what the report says of the images so far.

        Args:
          metrics: of `metrics`, where they are computed already.
        """
        return Judgement(
            examples=self._shown,
            threshold=pictures.best_threshold(self._examples),
            metrics=dict(metrics or self.metrics(per_category=True, with_baseline=True)),
            standard_error=self.coco.standard_error(),
            num_images=len(self.coco.images),
            num_objects=self.coco.num_objects,
        )


def judge(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    detector: Task,
    count: int = MOST_EXAMPLES,
) -> Judgement:
    """Judges a detector on the pipeline's evaluation set.

    Args:
      count: of the examples; fewer if fewer pictures have something in them.
    """
    collector = Collector(input_pipeline.label_map(pipeline.eval_input_reader[0]), count)
    predict = tf.function(detector.predict, autograph=False)
    return judged_on(pipeline, collector, predict, detector.blueprint.resizer).judgement()


def _arrays(tensors: Mapping[str, object]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in tensors.items()}


def _examples(
    batch: Mapping[str, np.ndarray],
    detections: Mapping[str, np.ndarray],
    class_names: Mapping[int, str],
) -> Iterator[Example]:
    """Yields every image of a batch, without its pixels."""
    for row, num_true in enumerate(batch["num_boxes"]):
        extent = batch["extent"][row]
        found = {name: values[row] for name, values in detections.items()}
        boxes, kept = found_in_image(found, extent)
        yield Example(
            image=np.zeros((0, 0, 3), np.uint8),
            boxes=boxes[kept],
            classes=found["detection_classes"][kept].astype(int),
            scores=found["detection_scores"][kept],
            truth_boxes=of_image(batch["boxes"][row, :num_true], extent),
            truth_classes=batch["classes"][row, :num_true],
            class_names=class_names,
            truth_is_crowd=batch["is_crowd"][row, :num_true],
        )


def _with_image(example: Example, batch: Mapping[str, np.ndarray], row: int) -> Example:
    shape = (int(batch["height"][row]), int(batch["width"][row]))
    image = _unpadded(batch["image"][row], batch["extent"][row])
    return dataclasses.replace(example, image=_in_shape(image, shape))


def _unpadded(image: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Returns the network's input, in [-1, 1], as uint8 and without its padding; an original image
    as it is."""
    if image.dtype == np.uint8:
        return image
    height, width = np.round(extent * image.shape[:2]).astype(int)
    return np.clip((image[:height, :width] + 1) * 127.5, 0, 255).round().astype(np.uint8)


def _in_shape(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Takes back what squeezed a picture into the network's input.

    Args:
      shape: (height, width) of the original; the result has its ratio and about as many pixels as
        `image`.
    """
    scale = (image.shape[0] * image.shape[1] / (shape[0] * shape[1])) ** 0.5
    height, width = (max(1, round(side * scale)) for side in shape)
    if (height, width) == image.shape[:2]:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))

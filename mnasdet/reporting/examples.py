"""Judges a detector on its whole evaluation set, and keeps the first pictures to be shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf
from PIL import Image

from mnasdet.data import input_pipeline
from mnasdet.detectors.one_stage import Detector
from mnasdet.evaluation.detection_evaluator import found_in_image, of_image
from mnasdet.evaluation.evaluate import evaluation_set
from mnasdet.protos import pipeline_pb2
from mnasdet.reporting import pictures
from mnasdet.reporting.judgement import Judgement
from mnasdet.reporting.pictures import MOST_EXAMPLES, Example


def judge(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    detector: Detector,
    count: int = MOST_EXAMPLES,
) -> Judgement:
    """Judges a detector on the pipeline's evaluation set.

    Args:
      count: of the examples; fewer if fewer pictures have something in them.
    """
    reader = pipeline.eval_input_reader[0]
    class_names = input_pipeline.label_map(reader)
    evaluator = detector.evaluator(class_names)
    examples: list[Example] = []
    shown: list[Example] = []
    predict = tf.function(detector.predict, autograph=False)
    with input_pipeline.naming_damaged_images(reader):
        for tensors in evaluation_set(pipeline, detector.blueprint.resizer):
            batch, detections = _arrays(tensors), _arrays(predict(tensors["image"]))
            evaluator.add(batch, detections)
            of_batch = list(_examples(batch, detections, class_names))
            # All of them, without pixels: the threshold is chosen on the whole set.
            examples += of_batch
            for row in np.flatnonzero(batch["num_boxes"])[: count - len(shown)]:
                shown.append(_with_image(of_batch[row], batch, row))
    return Judgement(
        examples=shown,
        threshold=pictures.best_threshold(examples),
        metrics=evaluator.metrics(per_category=True, with_baseline=True),
        standard_error=evaluator.coco.standard_error(),
        num_images=len(evaluator.coco.images),
        num_objects=evaluator.coco.num_objects,
    )


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
    """Returns the network's input, in [-1, 1], as uint8 and without its padding."""
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

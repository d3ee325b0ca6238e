"""Runs a detector on the first pictures of an evaluation set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from mnasdet.data import input_pipeline
from mnasdet.detectors.detector import Detector
from mnasdet.evaluation.evaluate import evaluation_set, of_image
from mnasdet.protos import pipeline_pb2
from mnasdet.reporting.pictures import MOST_EXAMPLES, Example


def detect(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    detector: Detector,
    count: int = MOST_EXAMPLES,
) -> list[Example]:
    """Of the first images with something in them; fewer if there are fewer."""
    reader = pipeline.eval_input_reader[0]
    class_names = input_pipeline.label_map(reader)
    found: list[Example] = []
    with input_pipeline.naming_damaged_images(reader):
        for batch in evaluation_set(pipeline):
            detections = detector.detect(batch["image"])
            found += _examples(_arrays(batch), _arrays(detections), class_names)
            if len(found) >= count:
                break
    return found[:count]


def _arrays(tensors: Mapping[str, object]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in tensors.items()}


def _examples(
    batch: Mapping[str, np.ndarray],
    detections: Mapping[str, np.ndarray],
    class_names: Mapping[int, str],
) -> Iterator[Example]:
    for row in np.flatnonzero(batch["num_boxes"]):
        extent = batch["extent"][row]
        num_true = batch["num_boxes"][row]
        boxes = of_image(detections["detection_boxes"][row], extent)
        kept = np.arange(len(boxes)) < detections["num_detections"][row]
        kept &= (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
        yield Example(
            image=_unpadded(batch["image"][row], extent),
            boxes=boxes[kept],
            classes=detections["detection_classes"][row, kept].astype(int),
            scores=detections["detection_scores"][row, kept],
            truth_boxes=of_image(batch["boxes"][row, :num_true], extent),
            truth_classes=batch["classes"][row, :num_true],
            class_names=class_names,
        )


def _unpadded(image: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """The network's input, in [-1, 1], as uint8 and without what it is padded with."""
    height, width = np.round(extent * image.shape[:2]).astype(int)
    return np.clip((image[:height, :width] + 1) * 127.5, 0, 255).round().astype(np.uint8)

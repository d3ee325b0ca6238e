"""Runs a detector over an evaluation set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from mnasdet.data import input_pipeline
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.errors import DataError
from mnasdet.evaluation.coco import CocoEvaluator
from mnasdet.protos import pipeline_pb2

# Images [batch, height, width, 3] to the detections of `PostProcessing`.
Detect = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def evaluation_set(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> tf.data.Dataset:
    """The batches of the pipeline's evaluation reader."""
    return _examples(pipeline, pipeline.eval_input_reader[0])


def _examples(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, reader: pipeline_pb2.InputReader
) -> tf.data.Dataset:
    return input_pipeline.evaluation_dataset(
        reader,
        resizer=ImageResizer.from_proto(pipeline.model.ssd.image_resizer),
        batch_size=pipeline.eval_config.batch_size,
    )


def first_images(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, count: int, *, training: bool = False
) -> np.ndarray:
    """[count, height, width, 3] float32 in [-1, 1] from the evaluation set; fewer if it is
    smaller.

    Args:
      training: from the training set, but as if they were evaluated: in the order of the records,
        and not augmented.
    """
    reader = pipeline_pb2.InputReader()
    reader.CopyFrom(pipeline.train_input_reader if training else pipeline.eval_input_reader[0])
    reader.cache_decoded_images = False  # Each is read once.
    batches = _examples(pipeline, reader).unbatch().map(lambda example: example["image"])
    with input_pipeline.naming_damaged_images(reader):
        return next(batches.batch(count).as_numpy_iterator())


def evaluate_pipeline(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, detect: Detect
) -> dict[str, float]:
    """COCO metrics of `detect` on the pipeline's evaluation set, as its eval_config says."""
    (reader,) = pipeline.eval_input_reader
    with input_pipeline.naming_damaged_images(reader):
        return evaluate(
            detect,
            evaluation_set(pipeline),
            input_pipeline.label_map(reader),
            pipeline.eval_config.include_metrics_per_category,
        )


def evaluate(
    detect: Detect,
    dataset: tf.data.Dataset,
    categories: dict[int, str],
    per_category: bool = False,
) -> dict[str, float]:
    """COCO metrics of `detect` over the batches of `evaluation_set`."""
    evaluator = CocoEvaluator(categories)
    empty = True
    for batch in dataset:
        detections = {key: np.asarray(value) for key, value in detect(batch["image"]).items()}
        for example, found in zip(_unbatch(batch), _unbatch(detections), strict=True):
            boxes, extent = int(example["num_boxes"]), example["extent"]
            detected = of_image(found["detection_boxes"], extent)
            kept = np.arange(len(detected)) < found["num_detections"]
            # What was found in the padding alone, or outside of the image, is nothing.
            kept &= (detected[:, :2] < detected[:, 2:]).all(axis=1)
            evaluator.add(
                int(example["height"]),
                int(example["width"]),
                of_image(example["boxes"][:boxes], extent),
                example["classes"][:boxes],
                example["area"][:boxes],
                example["is_crowd"][:boxes],
                detected[kept],
                found["detection_classes"][kept],
                found["detection_scores"][kept],
            )
            empty = False
    if empty:
        raise DataError("the evaluation set has no images")
    return evaluator.metrics(per_category)


def of_image(boxes: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Boxes of the network's input, padding and all, as boxes of the image itself."""
    return np.clip(boxes / np.tile(extent, 2), 0.0, 1.0)


def _unbatch(batch: dict[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    arrays = {key: np.asarray(value) for key, value in batch.items() if key != "image"}
    for row in range(len(next(iter(arrays.values())))):
        yield {key: value[row] for key, value in arrays.items()}

"""Runs a detector over an evaluation set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from mnasdet.data import input_pipeline
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.errors import DataError
from mnasdet.evaluation import baseline
from mnasdet.evaluation.coco import CocoEvaluator
from mnasdet.protos import input_reader_pb2, pipeline_pb2

# Images [batch, height, width, 3] to the detections of `PostProcessing`.
Detect = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def evaluation_set(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> tf.data.Dataset:
    """The batches of the pipeline's evaluation reader."""
    return _examples(pipeline, pipeline.eval_input_reader[0])


def _examples(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, reader: input_reader_pb2.InputReader
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
    reader = input_reader_pb2.InputReader()
    reader.CopyFrom(pipeline.train_input_reader if training else pipeline.eval_input_reader[0])
    reader.cache_decoded_images = False  # Each is read once.
    batches = _examples(pipeline, reader).unbatch().map(lambda example: example["image"])
    with input_pipeline.naming_damaged_images(reader):
        return next(batches.batch(count).as_numpy_iterator())


def evaluate_pipeline(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    detect: Detect,
    *,
    per_category: bool | None = None,
    with_baseline: bool = False,
) -> dict[str, float]:
    """Returns COCO metrics of `detect` on the pipeline's evaluation set.

    Args:
      per_category: as in `evaluate`; as eval_config says if left out.
      with_baseline: as in `evaluate`.
    """
    (reader,) = pipeline.eval_input_reader
    if per_category is None:
        per_category = pipeline.eval_config.include_metrics_per_category
    with input_pipeline.naming_damaged_images(reader):
        return evaluate(
            detect,
            evaluation_set(pipeline),
            input_pipeline.label_map(reader),
            per_category,
            with_baseline=with_baseline,
        )


def evaluate(
    detect: Detect,
    dataset: tf.data.Dataset,
    categories: dict[int, str],
    per_category: bool = False,
    *,
    with_baseline: bool = False,
) -> dict[str, float]:
    """Returns COCO metrics of `detect` over the batches of `evaluation_set`.

    Args:
      per_category: add the mAP of every class.
      with_baseline: add what the best constant boxes reach (`baseline.metrics`). On sets of
        thousands of images this takes as long as a second evaluation.
    """
    evaluator = CocoEvaluator(categories)
    for batch in dataset:
        detections = {key: np.asarray(value) for key, value in detect(batch["image"]).items()}
        add_batch(evaluator, batch, detections)
    if not evaluator.images:
        raise DataError("the evaluation set has no images")
    warn_of_nothing(evaluator)
    metrics = evaluator.metrics(per_category)
    if with_baseline:
        metrics |= baseline.metrics(evaluator)
    return metrics


def add_batch(
    evaluator: CocoEvaluator, batch: Mapping[str, Any], detections: Mapping[str, Any]
) -> None:
    """Adds the images of a batch of `evaluation_set`, with what was found in them."""
    for example, found in zip(_unbatch(batch), _unbatch(detections), strict=True):
        boxes, extent = int(example["num_boxes"]), example["extent"]
        detected, kept = found_in_image(found, extent)
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


def warn_of_nothing(evaluator: CocoEvaluator) -> None:
    """Says why all metrics are -1 or 0."""
    if not evaluator.num_objects:
        logging.warning(
            "the evaluation set has no object%s: there is nothing to measure, and mAP is -1",
            " that is not a crowd" if evaluator.annotations else "",
        )
    elif not evaluator.detections:
        logging.warning(
            "the detector found nothing in %d images, and mAP is 0: no score reaches "
            "post_processing.batch_non_max_suppression.score_threshold",
            len(evaluator.images),
        )


def found_in_image(
    found: Mapping[str, np.ndarray], extent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Takes the padding off the detections of one image.

    Args:
      found: the detections of `PostProcessing`, without the batch.
      extent: of the image, as of `input_pipeline.preprocess`.

    Returns:
      All boxes, normalised to the image itself, and a mask of those that count: what was found in
      the padding alone, or outside of the image, is nothing.
    """
    boxes = of_image(found["detection_boxes"], extent)
    kept = np.arange(len(boxes)) < found["num_detections"]
    return boxes, kept & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)


def of_image(boxes: np.ndarray, extent: np.ndarray) -> np.ndarray:
    """Boxes of the network's input, padding and all, as boxes of the image itself."""
    return np.clip(boxes / np.tile(extent, 2), 0.0, 1.0)


def _unbatch(batch: Mapping[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    arrays = {key: np.asarray(value) for key, value in batch.items() if key != "image"}
    for row in range(len(next(iter(arrays.values())))):
        yield {key: value[row] for key, value in arrays.items()}

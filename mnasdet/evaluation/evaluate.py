"""Runs a model over an evaluation set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from mnasdet.data import input_pipeline
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.protos import input_reader_pb2, pipeline_pb2
from mnasdet.tasks import Evaluator, Task

# Images [batch, height, width, 3] to what `Task.predict` gives.
Predict = Callable[[tf.Tensor], dict[str, Any]]

_AnyEvaluator = TypeVar("_AnyEvaluator", bound=Evaluator)


def evaluation_set(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, resizer: ImageResizer | None
) -> tf.data.Dataset:
    """Returns the batches of the pipeline's evaluation reader.

    Args:
      resizer: None leaves the images as they are, uint8 and of any size: batches of one.
    """
    return input_pipeline.evaluation_dataset(
        pipeline.eval_input_reader[0],
        resizer=resizer,
        batch_size=pipeline.eval_config.batch_size if resizer else 1,
    )


def first_images(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    resizer: ImageResizer,
    count: int,
    *,
    training: bool = False,
) -> np.ndarray:
    """Returns [count, height, width, 3] float32 in [-1, 1] from the evaluation set; fewer if it is
    smaller.

    Args:
      training: from the training set, but as if they were evaluated: in the order of the records,
        and not augmented.
    """
    reader = input_reader_pb2.InputReader()
    # A copy: the caller's config goes on to cache its images.
    reader.CopyFrom(pipeline.train_input_reader if training else pipeline.eval_input_reader[0])
    reader.cache_decoded_images = False  # Each is read once.
    batches = input_pipeline.evaluation_dataset(
        reader, resizer=resizer, batch_size=pipeline.eval_config.batch_size
    )
    images = batches.unbatch().map(lambda example: example["image"])
    with input_pipeline.naming_damaged_images(reader):
        return next(images.batch(count).as_numpy_iterator())


def evaluate_pipeline(
    task: Task,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    predict: Predict | None = None,
    *,
    per_category: bool | None = None,
    with_baseline: bool = False,
) -> dict[str, float]:
    """Returns the metrics of a task's model on the pipeline's evaluation set.

    Args:
      predict: in place of `task.predict`: that of a file which was exported from it.
      per_category, with_baseline: see `Evaluator.metrics`; if the first is left out, eval_config
        decides it.
    """
    if per_category is None:
        per_category = pipeline.eval_config.include_metrics_per_category
    evaluator = judged_on(
        pipeline,
        task.evaluator(input_pipeline.label_map(pipeline.eval_input_reader[0])),
        predict or tf.function(task.predict, autograph=False),
        task.blueprint.resizer,
    )
    return evaluator.metrics(
        per_category=per_category,
        all_per_category=pipeline.eval_config.all_metrics_per_category,
        with_baseline=with_baseline,
    )


def judged_on(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    evaluator: _AnyEvaluator,
    predict: Predict,
    resizer: ImageResizer | None,
) -> _AnyEvaluator:
    """Adds all images of the pipeline's evaluation set to an evaluator, and returns it.

    Args:
      resizer: of the images that `predict` takes; None where it takes the original ones.
    """
    with input_pipeline.naming_damaged_images(*pipeline.eval_input_reader):
        return judged(evaluator, predict, evaluation_set(pipeline, resizer))


def judged(evaluator: _AnyEvaluator, predict: Predict, dataset: tf.data.Dataset) -> _AnyEvaluator:
    """Adds all batches of `evaluation_set` to an evaluator, and returns it."""
    for batch in dataset:
        predictions = {key: np.asarray(value) for key, value in predict(batch["image"]).items()}
        evaluator.add(batch, predictions)
    return evaluator

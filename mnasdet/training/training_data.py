"""Batches of the images that a task is trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from mnasdet.data import input_pipeline
from mnasdet.protos import pipeline_pb2
from mnasdet.tasks import Task
from mnasdet.training import distribution


def training_set(
    task: Task, pipeline: pipeline_pb2.TrainEvalPipelineConfig, seed: int, start: int = 0
) -> tf.data.Dataset:
    """Returns endless batches of `task.targets`, spread over the replicas.

    Each example has its own `seed`, [2] int64, from which the network draws its random numbers.

    Args:
      start: the number of batches that came before.
    """

    def transform(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**task.targets(example), "seed": example["seed"]}

    def share(worker: int, num_workers: int) -> tf.data.Dataset:
        return batches(task, pipeline, seed, start, transform, (worker, num_workers))

    return distribution.Workers(pipeline.train_config.distribution).batches(share)


def batches(
    task: Task,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    seed: int,
    start: int,
    transform: Callable[[dict[str, tf.Tensor]], Any],
    share: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Returns endless batches of what `transform` makes of an example.

    Args:
      start: the number of batches that came before.
      share: (i, n) for part i, from 0, of n equal parts of every batch.
    """
    return input_pipeline.training_dataset(
        pipeline.train_input_reader,
        resizer=task.blueprint.resizer,
        batch_size=pipeline.train_config.batch_size,
        augmentations=pipeline.train_config.data_augmentation_options,
        transform=transform,
        seed=seed,
        trainings_at_once=trainings_at_once(pipeline),
        share=share,
        start=start * pipeline.train_config.batch_size,
    )


def trainings_at_once(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> int:
    """Returns the number of workers of a search, 1 where there is none."""
    executor = pipeline.search_config.executor
    workers = getattr(executor, executor.WhichOneof("executor_oneof") or "", None)
    return max(1, getattr(workers, "num_workers", 1))

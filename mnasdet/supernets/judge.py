"""Judges networks of a supernet, which has their weights."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from mnasdet.classifiers.classifier import Classifier
from mnasdet.detectors.one_stage import Detector
from mnasdet.evaluation.evaluate import evaluate_pipeline
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.supernets.shared_task import SharedTask, resized
from mnasdet.tasks import Task


class Judge:
    """Evaluates networks of a trained supernet."""

    def __init__(
        self,
        task: Task,
        pipeline: pipeline_pb2.TrainEvalPipelineConfig,
        images: list[tf.Tensor],
    ):
        """
        Args:
          task: a `SharedTask`.
          images: batches [batch, height, width, 3] of its training set, from which the statistics
            of batch normalisation are taken anew for every network: those of the supernet are of
            no network at all (Guo et al., "Single Path One-Shot Neural Architecture Search with
            Uniform Sampling", 2020, section 3.4).
        """
        assert isinstance(task, SharedTask)
        self._task, self._pipeline = task, pipeline
        self._images = images
        self._averages = task.model.moving_averages()
        # Each is traced once, whatever network is chosen.
        self._predict = {
            size: tf.function(of_size.predict, autograph=False)
            for size, of_size in task.of_sizes.items()
        }
        self._statistics = {
            size: tf.function(functools.partial(self._statistics_of, of_size), autograph=False)
            for size, of_size in task.of_sizes.items()
        }

    def metrics(self, architecture: architecture_pb2.Architecture) -> dict[str, float]:
        """Returns the metrics of a network on the evaluation set."""
        task = self._recalibrated(architecture)
        return evaluate_pipeline(task, self._pipeline, self._predict[task.image_size])

    def weights(self, architecture: architecture_pb2.Architecture) -> dict[str, np.ndarray]:
        """Returns the weights of a network, by their names in it, with statistics of its own."""
        return self._recalibrated(architecture).model.weights_of(architecture)

    def _recalibrated(self, architecture: architecture_pb2.Architecture) -> Detector | Classifier:
        """Returns the task of a network, with the mean of the statistics of all batches for moving
        averages."""
        task = self._task.of(architecture)
        batches = [
            self._statistics[task.image_size](resized(images, task.image_size))
            for images in self._images
        ]
        # The mean of variances leaves out how far the means of batches are apart, as the moving
        # averages of a training do.
        for (variable, _), own in zip(self._averages, zip(*batches, strict=True), strict=True):
            variable.assign(tf.add_n(own) / len(own))
        return task

    def _statistics_of(self, task: Detector | Classifier, images: tf.Tensor) -> list[tf.Tensor]:
        """Returns the statistics of a batch, one for each of the moving averages."""
        # From zero, an average moves to a share of the batch's own statistic.
        for variable, _ in self._averages:
            variable.assign(tf.zeros_like(variable))
        task.model(images, training=True)
        return [variable / (1 - momentum) for variable, momentum in self._averages]

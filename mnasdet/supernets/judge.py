"""Judges networks of a supernet, which has their weights."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from mnasdet.evaluation.evaluate import evaluate_pipeline
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.supernets.shared_network import SharedNetwork
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
          task: one whose model is a `SharedNetwork`.
          images: batches [batch, height, width, 3] of the training set, from which the statistics
            of batch normalisation are taken anew for every network: those of the supernet are of
            no network at all (Guo et al., "Single Path One-Shot Neural Architecture Search with
            Uniform Sampling", 2020, section 3.4).
        """
        assert isinstance(task.model, SharedNetwork)
        self._task, self._model = task, task.model
        self._pipeline = pipeline
        self._images = images
        self._averages = task.model.moving_averages()
        # Traced once, whatever network is chosen.
        self._predict = tf.function(task.predict, autograph=False)
        self._run = tf.function(
            functools.partial(task.model.of_chosen, training=True), autograph=False
        )

    def metrics(self, architecture: architecture_pb2.Architecture) -> dict[str, float]:
        """Returns the metrics of a network on the evaluation set."""
        self._choose(architecture)
        return evaluate_pipeline(self._task, self._pipeline, self._predict)

    def weights(self, architecture: architecture_pb2.Architecture) -> dict[str, np.ndarray]:
        """Returns the weights of a network, by their names in it, with statistics of its own."""
        self._choose(architecture)
        return self._model.weights_of(architecture)

    def _choose(self, architecture: architecture_pb2.Architecture) -> None:
        self._model.choose(architecture)
        self._recalibrate()

    def _recalibrate(self) -> None:
        """Sets the moving averages to the mean of the statistics of all batches."""
        sums = [tf.zeros_like(variable) for variable, _ in self._averages]
        for images in self._images:
            # From zero, an average moves to a share of the batch's own statistic.
            for variable, _ in self._averages:
                variable.assign(tf.zeros_like(variable))
            self._run(images)
            sums = [
                total + variable / (1 - momentum)
                for total, (variable, momentum) in zip(sums, self._averages, strict=True)
            ]
        # The mean of variances leaves out how far the means of batches are apart, as the moving
        # averages of a training do.
        for (variable, _), total in zip(self._averages, sums, strict=True):
            variable.assign(total / len(self._images))

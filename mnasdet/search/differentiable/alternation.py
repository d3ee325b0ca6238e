"""Weights and alpha of a supernet by turns, each on its own half of the training images.

First-order DARTS (Liu et al., "DARTS: Differentiable Architecture Search", 2019), as Hit-Detector
has it (Guo et al., 2020, section 3.4).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from mnasdet import files
from mnasdet.networks.mixed import ALPHA
from mnasdet.protos import pipeline_pb2, train_pb2
from mnasdet.search.differentiable import records
from mnasdet.tasks import Loss, Task
from mnasdet.training import checkpoints, trainer, training_data
from mnasdet.training.learner import Learner

# Finds the names of alpha among those of all weights.
_ALPHA = f"/{ALPHA}$"

# Entries of the file with the probabilities over time, about.
_NUM_ENTRIES = 100

# The training of alpha computes a step as that of the weights does: these fields are its own, too.
_COMPUTATION = (
    "batch_size",
    "num_steps",
    "parallel_parts",
    "gradient_accumulation_steps",
    "jit_compile",
    "precision",
)

# The alphas of a model, by the names of its choices, to a loss.
Penalty = Callable[[Mapping[str, tf.Variable]], tf.Tensor]


def alphas(model: tf_keras.Model) -> dict[str, tf.Variable]:
    """Returns the logits of every choice, by the choice's name."""
    suffix = f"/{ALPHA}"
    named = checkpoints.variables_by_name(model)
    return {
        name.removesuffix(suffix): variable
        for name, variable in named.items()
        if name.endswith(suffix)
    }


class AlternatingLearner:
    """Updates the weights, then alpha. It has what a training uses of a `Learner`.

    Attributes:
      checkpoint: weights, alpha and the states of both optimizers.
    """

    def __init__(self, weights: Learner, alpha: Learner, history: History):
        self._weights, self._alpha, self._history = weights, alpha, history
        self.model = weights.model
        self.checkpoint = weights.checkpoint
        self.checkpoint.alpha = alpha.checkpoint

    @property
    def step(self) -> int:
        """Returns how many updates of the weights were made."""
        return self._weights.step

    def update(self, batches: tuple[Any, Any]) -> dict[str, tf.Tensor]:
        """Makes an update of the weights, and one of alpha if there is a batch for it."""
        own, other = batches
        values = self._weights.update(own)
        # First order: alpha's gradient takes the weights as they are, not as functions of alpha.
        if other is not None:
            values |= {f"alpha/{name}": value for name, value in self._alpha.update(other).items()}
        return values

    def average(self, step: int) -> None:
        self._weights.average(step)
        self._history.add(step, alphas(self.model))

    def averaged_weights(self) -> contextlib.AbstractContextManager[None]:
        return self._weights.averaged_weights()

    @property
    def bad_step(self) -> int:
        return self._weights.bad_step

    def fault(self) -> str:
        if fault := self._weights.fault():
            return fault
        fault = self._alpha.fault()
        return fault and f"in the training of alpha, {fault}"

    def first_bad_tensor(self, batch: Any) -> str | None:
        return self._weights.first_bad_tensor(batch)


class History:
    """The probabilities of a supernet's choices over time, in a file."""

    def __init__(self, path: Path, num_steps: int):
        self._path, self._num_steps = path, num_steps
        self._every = max(1, num_steps // _NUM_ENTRIES)
        self._entries: list[dict[str, Any]] | None = None

    def add(self, step: int, logits: Mapping[str, tf.Variable]) -> None:
        """Writes the probabilities after a step, if it is time for it."""
        if step % self._every and step != self._num_steps:
            return
        if self._entries is None:
            # A run that was killed goes on from a step before its last entry.
            self._entries = [entry for entry in records.history(self._path) if entry["step"] < step]
        probabilities = {
            name: [float(f"{p:.9g}") for p in tf.nn.softmax(alpha).numpy()]
            for name, alpha in logits.items()
        }
        self._entries.append({"step": step, "probabilities": probabilities})
        files.write_json(self._path, self._entries)


class _Penalized:
    """A task whose losses have a penalty of its alpha among them."""

    def __init__(self, task: Task, penalty: Penalty, num_calls: int):
        """
        Args:
          num_calls: how often a step asks for losses: they are added up.
        """
        self._task, self._penalty, self._num_calls = task, penalty, num_calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def losses(self, batch: Mapping[str, tf.Tensor]) -> dict[str, Loss]:
        penalty = self._penalty(alphas(self._task.model)) / self._num_calls
        return {**self._task.losses(batch), "penalty": Loss(penalty, tf.constant(0.0))}


def method(
    folder: Path,
    penalty: Penalty,
    *,
    learning_rate: float,
    start_step: int,
    initial: Callable[[str], Any] | None = None,
) -> trainer.Method:
    """Returns how `trainer.train` trains a supernet.

    The config that it trains is one of `first_half`: its images train the weights.

    Args:
      folder: gets the file with the probabilities over time.
      learning_rate: of alpha.
      start_step: updates of the weights before the first of alpha.
      initial: the alpha that a choice of a name starts from; zeros if left out.
    """

    def alternating(
        task: Task, pipeline: pipeline_pb2.TrainEvalPipelineConfig, seed: int
    ) -> trainer.Learning:
        if initial:
            for name, variable in alphas(task.model).items():
                variable.assign(initial(name))
        training = pipeline.train_config
        of_weights = train_pb2.TrainConfig()
        of_weights.CopyFrom(training)
        of_weights.freeze_variables.append(_ALPHA)
        other = _second_half(pipeline)
        other.train_config.CopyFrom(_training_of_alpha(training, learning_rate))
        num_calls = (
            max(1, training.parallel_parts)
            * max(1, training.gradient_accumulation_steps)
            * tf.distribute.get_strategy().num_replicas_in_sync
        )
        learner = AlternatingLearner(
            Learner(
                task,
                of_weights,
                keep_averages=pipeline.eval_config.use_moving_averages,
            ),
            Learner(_Penalized(task, penalty, num_calls), other.train_config),
            History(folder / records.HISTORY_FILE, training.num_steps),
        )

        def batches(start: int) -> Iterator[tuple[Any, Any]]:
            # As each is a function of seed and number, a run that goes on sees what it would have.
            first = iter(training_data.training_set(task, pipeline, seed, start))
            second = iter(training_data.training_set(task, other, seed, max(0, start - start_step)))
            for step in itertools.count(start):
                yield next(first), next(second) if step >= start_step else None

        return trainer.Learning(learner, batches)  # type: ignore[arg-type]

    return alternating


def _training_of_alpha(
    weights: train_pb2.TrainConfig, learning_rate: float
) -> train_pb2.TrainConfig:
    config = train_pb2.TrainConfig()
    for name in _COMPUTATION:
        if weights.HasField(name):
            setattr(config, name, getattr(weights, name))
    config.data_augmentation_options.extend(weights.data_augmentation_options)
    if weights.HasField("distribution"):
        config.distribution.CopyFrom(weights.distribution)
    config.update_trainable_variables.append(_ALPHA)
    # Alpha has no part in it.
    config.add_regularization_loss = False
    # Adam, as in the paper, whose rate for alpha is 4e-4.
    rate = config.optimizer.adam_optimizer.learning_rate.constant_learning_rate
    rate.learning_rate = learning_rate
    config.optimizer.use_moving_average = False
    return config


def first_half(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the config with every second one of its training images, from the first on."""
    copy = pipeline_pb2.TrainEvalPipelineConfig()
    copy.CopyFrom(pipeline)
    reader = copy.train_input_reader
    reader.sample_1_of_n_examples = 2 * max(1, reader.sample_1_of_n_examples)
    return copy


def _second_half(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns a config of the first half with the images of the second."""
    copy = pipeline_pb2.TrainEvalPipelineConfig()
    copy.CopyFrom(pipeline)
    reader = copy.train_input_reader
    reader.first_sampled_example += reader.sample_1_of_n_examples // 2
    return copy

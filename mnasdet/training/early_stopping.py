"""The end of a training that gains no more."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from mnasdet.protos import train_pb2
from mnasdet.training.literal_paths import literal

# The state's name in a checkpoint.
_STATE = "early_stopping"


class EarlyStopping:
    """Judges a training by its evaluations, one after another."""

    def __init__(self, evaluations_without_gain: int, min_gain: float = 0.0):
        """
        Args:
          evaluations_without_gain: as many in a row end the training.
          min_gain: what an evaluation has to be above the best one to be a gain.
        """
        self._patience, self._min_gain = evaluations_without_gain, min_gain
        # In variables, to be saved in the same moment as the weights that they belong to: with
        # another file, a run killed between the two would go on from the wrong count.
        self._best = tf.Variable(-math.inf, trainable=False)
        self._waited = tf.Variable(0, dtype=tf.int64, trainable=False)
        self._state = tf.train.Checkpoint(best=self._best, waited=self._waited)

    @property
    def is_over(self) -> bool:
        """Returns whether the training has to end."""
        return int(self._waited.numpy()) >= self._patience

    def add(self, value: float) -> None:
        """Adds the result of an evaluation; more is better."""
        # In the variable's precision: a value is no gain above itself.
        if np.float32(value) > self._best.numpy() + np.float32(self._min_gain):
            self._best.assign(value)
            self._waited.assign(0)
        else:
            self._waited.assign_add(1)

    def describe(self) -> str:
        """Returns why the training is over."""
        margin = f" by more than {self._min_gain:g}" if self._min_gain else ""
        best = f"{self._best.numpy():.4f}{margin}"
        return f"none of the last {self._patience} evaluations was above {best}"

    def attach(self, checkpoint: tf.train.Checkpoint, prefix: str = "") -> None:
        """Makes the state a part of a training's checkpoint.

        Args:
          prefix: the checkpoint that the training goes on from; it need not have the state.
        """
        if prefix:
            held = tf.train.Checkpoint(**{_STATE: self._state})
            held.read(literal(prefix)).expect_partial()
        setattr(checkpoint, _STATE, self._state)


def from_config(train_config: train_pb2.TrainConfig) -> EarlyStopping | None:
    """Returns what `early_stopping` describes; None where the config has none."""
    if not train_config.HasField("early_stopping"):
        return None
    settings = train_config.early_stopping
    return EarlyStopping(settings.evaluations_without_gain, settings.min_gain)

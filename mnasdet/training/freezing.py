"""Variables that keep their values for the first steps of a training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import tensorflow as tf
import tf_keras

from mnasdet.errors import ConfigError
from mnasdet.protos import train_pb2
from mnasdet.training import checkpoints, variable_patterns


class Freezing:
    """Freezes variables, and the batch normalisation among them.

    Attributes:
      until: the first update, from 0, that moves all variables.
      moving: what is trained from the first update on.
    """

    def __init__(
        self,
        model: tf_keras.Model,
        trained: Sequence[tf.Variable],
        patterns: Sequence[str],
        until: int,
    ):
        """
        Args:
          trained: the variables that training changes in the end.
          patterns: regular expressions of the variables' names.

        Raises:
          ConfigError: an expression is found in no name, or nothing is left to train.
        """
        variable_patterns.check(
            "freeze_until.variables", patterns, checkpoints.variables_by_name(model)
        )
        self.until = until
        self._patterns = list(patterns)
        self.moving = [variable for variable in trained if not self.freezes(variable.name)]
        if not self.moving:
            raise ConfigError(
                f"train_config.freeze_until leaves nothing to train in the first {until} steps"
            )
        self._batch_norms = [
            layer
            for layer in model.layers
            if isinstance(layer, tf_keras.layers.BatchNormalization)
            and layer.trainable
            and self.freezes(layer.moving_mean.name)
        ]

    def freezes(self, name: str) -> bool:
        """Tells whether a variable of this name is frozen."""
        return variable_patterns.found(self._patterns, name.removesuffix(":0"))

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """Makes steps that are traced inside leave frozen batch normalisation as it is.

        It normalises by its moving averages. By a batch's own statistics, the layers behind it
        would learn from other features than those that the checkpoint was trained for; and the
        averages would leave those that belong to the frozen kernels.
        """
        try:
            for layer in self._batch_norms:
                layer.trainable = False
            yield
        finally:
            for layer in self._batch_norms:
                layer.trainable = True


def from_config(
    model: tf_keras.Model, trained: Sequence[tf.Variable], train_config: train_pb2.TrainConfig
) -> Freezing | None:
    """Returns what `freeze_until` freezes; None where the config has none."""
    if not train_config.HasField("freeze_until"):
        return None
    settings = train_config.freeze_until
    return Freezing(model, trained, settings.variables, settings.step)

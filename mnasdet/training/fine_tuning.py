"""How a training treats single variables: rates of their own, frozen first."""

from __future__ import annotations

import tf_keras
from absl import logging

from mnasdet.protos import train_pb2
from mnasdet.training import checkpoints, optimizers, variable_patterns
from mnasdet.training.freezing import Freezing
from mnasdet.training.optimizers import Treatment, Treatments


def treatments(
    model: tf_keras.Model, train_config: train_pb2.TrainConfig, frozen_first: Freezing | None
) -> Treatments:
    """Returns how the optimizer has to treat the model's variables, by `rate_factors`.

    Raises:
      ConfigError: an expression is found in no variable's name.
    """
    factors = train_config.rate_factors
    for index, entry in enumerate(factors):
        variable_patterns.check(
            f"rate_factors[{index}].variables",
            entry.variables,
            checkpoints.variables_by_name(model),
        )

    def treatment(name: str) -> Treatment:
        factor = next(
            (entry.factor for entry in factors if variable_patterns.found(entry.variables, name)),
            1.0,
        )
        is_late = frozen_first is not None and frozen_first.freezes(name)
        return Treatment(factor, frozen_first.until if frozen_first and is_late else 0)

    return treatment


def warn_of_two_decays(
    model: tf_keras.Model, train_config: train_pb2.TrainConfig, optimizer: optimizers.Optimizer
) -> None:
    """Says so in the log where kernels get smaller by weight decay and by a regulariser."""
    if optimizer.weight_decay and train_config.add_regularization_loss and model.losses:
        logging.warning(
            "kernels shrink twice: by the optimizer's weight_decay, %g, and by the model's "
            "l2_regularizer; add_regularization_loss: false leaves it to weight_decay",
            optimizer.weight_decay,
        )

"""Sparse kernels: the smallest weights become zero and stay so (Zhu and Gupta, "To prune, or not to
prune", 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf
from tensorflow_model_optimization.python.core.sparsity.keras.pruning_impl import Pruning
from tensorflow_model_optimization.sparsity.keras import PolynomialDecay

from mnasdet.protos import train_pb2

_KERNEL = "/kernel"


def kernels(variables: Sequence[tf.Variable]) -> dict[str, tf.Variable]:
    """Returns the kernels of convolutions by name, without the few, sensitive depthwise weights."""
    names = {variable.name.removesuffix(":0"): variable for variable in variables}
    return {name: v for name, v in names.items() if name.endswith(_KERNEL)}


class Pruner:
    """Keeps the masks of the kernels beside the network, which stays as it is built: tfmot's
    algorithm without its wrappers, so that there is nothing to be stripped.

    Attributes:
      masks: by the kernel's name: 1 where a weight is kept, 0 where it is zero.
    """

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        step: tf.Variable,
        *,
        final_sparsity: float,
        begin_step: int,
        end_step: int,
        frequency: int,
        initial_sparsity: float = 0.0,
    ):
        """
        Args:
          variables: what is trained; kernels of convolutions among them are pruned.
          step: the number of updates made.
          final_sparsity, initial_sparsity: share of zeros in each kernel, at `end_step` and at
            `begin_step`.
          frequency: steps between two choices of the weights to keep.
        """
        self._kernels = kernels(variables)
        self.masks = {
            name: tf.Variable(tf.ones_like(kernel), trainable=False)
            for name, kernel in self._kernels.items()
        }
        self._step = step
        self._schedule = PolynomialDecay(
            initial_sparsity, final_sparsity, begin_step, end_step, frequency=frequency
        )
        # Its own assignments fail where a variable has copies on several devices.
        self._pruning = Pruning(
            training_step_fn=lambda: step,
            pruning_vars=[],
            pruning_schedule=self._schedule,
            block_size=(1, 1),
            block_pooling_type="AVG",
        )

    def apply(self, averages: Mapping[str, tf.Variable]) -> None:
        """Chooses weights, if it is time, and zeroes the others. To be called after every update.

        Weights become zero in the moving averages as well, where such are kept.
        """
        is_time, _ = self._schedule(self._step)
        for name, mask in self.masks.items():
            kernel = self._kernels[name]
            weights, kept = tf.convert_to_tensor(kernel), tf.convert_to_tensor(mask)
            # Between two choices the mask is only applied: updates would else bring weights back.
            kept = tf.cond(
                is_time, lambda w=weights: self._pruning._update_mask(w)[1], lambda k=kept: k
            )
            mask.assign(kept)
            kernel.assign(weights * kept)
            if name in averages:
                averages[name].assign(averages[name] * kept)


def from_config(
    proto: train_pb2.Pruning, variables: Sequence[tf.Variable], step: tf.Variable
) -> Pruner:
    """Builds the `Pruner` that a `pruning` message describes."""
    return Pruner(
        variables,
        step,
        initial_sparsity=proto.initial_sparsity,
        final_sparsity=proto.final_sparsity,
        begin_step=proto.begin_step,
        end_step=proto.end_step,
        frequency=proto.frequency,
    )

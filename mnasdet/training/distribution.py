"""The replicas of a training: which devices take part, and sums over all of them.

Nothing else in the library knows how many replicas there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import tensorflow as tf

from mnasdet.tasks import Loss

_Tensors = TypeVar("_Tensors", bound=Sequence)


def strategy() -> tf.distribute.Strategy:
    """Returns the strategy of all GPUs of this machine, or of its CPU."""
    # With one device the default strategy does the same without the collectives.
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def summed(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the sums of each tensor over all replicas; called by each replica."""
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))


def joined(losses: Sequence[Loss]) -> Loss:
    """Returns the loss of a batch from those of its parts."""
    return Loss(
        tf.add_n([loss.total for loss in losses]),
        tf.add_n([tf.convert_to_tensor(loss.normalizer) for loss in losses]),
    )

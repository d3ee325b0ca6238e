"""Training in 16-bit numbers.

Layers that are built within `building` compute in them; weights, batch statistics, losses and the
sums of gradients stay float32. The smallest gradients would be 0 in float16, so the loss is
multiplied by a scale, and the gradients are divided by it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import tensorflow as tf
import tf_keras

from mnasdet.protos import train_pb2
from mnasdet.tasks import Task
from mnasdet.training import checkpoints, optimizers

_POLICIES = {
    train_pb2.TrainConfig.FLOAT32: "float32",
    train_pb2.TrainConfig.BFLOAT16: "mixed_bfloat16",
    train_pb2.TrainConfig.FLOAT16: "mixed_float16",
}


def of_config(train_config: train_pb2.TrainConfig) -> train_pb2.TrainConfig.Precision:
    """Returns the precision that a config asks for, by our field or by the OD API's."""
    if train_config.use_bfloat16 and not train_config.HasField("precision"):
        return train_pb2.TrainConfig.BFLOAT16
    return train_config.precision


@contextlib.contextmanager
def building(train_config: train_pb2.TrainConfig) -> Iterator[None]:
    """Makes the layers that are built inside compute as `train_config` says."""
    before = tf_keras.mixed_precision.global_policy()
    tf_keras.mixed_precision.set_global_policy(_POLICIES[of_config(train_config)])
    try:
        yield
    finally:
        tf_keras.mixed_precision.set_global_policy(before)


def evaluated(
    task: Task, train_config: train_pb2.TrainConfig, build: Callable[[], Task]
) -> tuple[Task, Callable[[], None]]:
    """Returns a task in float32 to evaluate, and what gives it the weights of the trained one.

    Args:
      build: makes the float32 task, where `task` is in other numbers.
    """
    if of_config(train_config) == train_pb2.TrainConfig.FLOAT32:
        return task, lambda: None
    copy = build()
    variables = checkpoints.variables_by_name(copy.model)

    def update() -> None:
        for name, variable in checkpoints.variables_by_name(task.model).items():
            variables[name].assign(variable)

    return copy, update


def scaling(
    optimizer: optimizers.Optimizer, train_config: train_pb2.TrainConfig
) -> optimizers.Optimizer:
    """Returns an optimizer that keeps a scale for float16; others as they are.

    It doubles the scale after every 2000 steps, halves it where a gradient overflows, and leaves
    that step out.
    """
    if of_config(train_config) != train_pb2.TrainConfig.FLOAT16:
        return optimizer
    return tf_keras.mixed_precision.LossScaleOptimizer(optimizer)


def scaled(optimizer: optimizers.Optimizer, loss: tf.Tensor) -> tf.Tensor:
    """Returns the loss whose gradients `unscaled` takes."""
    return optimizer.get_scaled_loss(loss) if _scales(optimizer) else loss


def unscaled(optimizer: optimizers.Optimizer, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the gradients of the loss itself."""
    return optimizer.get_unscaled_gradients(gradients) if _scales(optimizer) else gradients


def judged(optimizer: optimizers.Optimizer, norm: tf.Tensor) -> tf.Tensor:
    """Returns the norm of unscaled gradients by which a step is sound or not.

    One that overflows is 0 while there is a lower scale: the optimizer takes that and leaves out
    the step.
    """
    if not _scales(optimizer):
        return norm
    overflows = ~tf.math.is_finite(norm) & (optimizer.loss_scale > 1.0)
    return tf.where(overflows, 0.0, norm)


def _scales(optimizer: optimizers.Optimizer) -> bool:
    return isinstance(optimizer, tf_keras.mixed_precision.LossScaleOptimizer)

"""Optimizers: how gradients move the weights.

They are tf_keras' legacy ones, which update a variable in one fused operation. Their learning rate
is a variable for the caller to set.
"""

from __future__ import annotations

from typing import TypeAlias

import tf_keras

from mnasdet.protos import optimizer_pb2
from mnasdet.training import schedules

Optimizer: TypeAlias = tf_keras.optimizers.legacy.Optimizer


def sgd(momentum: float = 0.9) -> Optimizer:
    """Returns gradient descent; `momentum` is the share of an update that the next one keeps."""
    # The caller sets the rate before every step: a schedule in the optimizer would be a second one.
    return tf_keras.optimizers.legacy.SGD(learning_rate=0.0, momentum=momentum)


def adam(epsilon: float = 1e-8) -> Optimizer:
    """Returns Adam (Kingma and Ba, 2014) with the usual decays; `epsilon` is added to the root."""
    return tf_keras.optimizers.legacy.Adam(learning_rate=0.0, epsilon=epsilon)


class RMSProp(tf_keras.optimizers.legacy.RMSprop):
    """The gradient over the root of its mean square, then momentum, as TensorFlow 1 had it.

    tf_keras' own starts the mean squares at 0 instead of 1 and, without momentum, adds epsilon
    outside of the root: with the usual epsilon of 1 that is another algorithm.
    """

    def __init__(self, decay: float = 0.9, momentum: float = 0.9, epsilon: float = 1.0):
        """Takes `decay`, the share of the old mean square that a step keeps."""
        super().__init__(learning_rate=0.0, rho=decay, momentum=momentum, epsilon=epsilon)
        # Takes the fused operation even for a momentum of 0.
        self._momentum = True

    def _create_slots(self, var_list):
        for variable in var_list:
            self.add_slot(variable, "rms", initializer="ones")
            self.add_slot(variable, "momentum")


def from_config(proto: optimizer_pb2.Optimizer) -> tuple[Optimizer, schedules.Schedule]:
    """Returns the optimizer that an `optimizer` message describes, and its learning rate."""
    name = proto.WhichOneof("optimizer")
    match name:
        case "rms_prop_optimizer":
            rms_prop = proto.rms_prop_optimizer
            optimizer: Optimizer = RMSProp(
                rms_prop.decay, rms_prop.momentum_optimizer_value, rms_prop.epsilon
            )
        case "adam_optimizer":
            optimizer = adam(proto.adam_optimizer.epsilon)
        case _:
            name = "momentum_optimizer"
            optimizer = sgd(proto.momentum_optimizer.momentum_optimizer_value)
    return optimizer, schedules.from_config(getattr(proto, name).learning_rate)

"""Optimizers: how gradients move the weights.

They are tf_keras' legacy ones, which update a variable in one fused operation. Their learning rate
is a variable for the caller to set.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf
import tf_keras

from mnasdet.protos import optimizer_pb2
from mnasdet.training import schedules

Optimizer: TypeAlias = tf_keras.optimizers.legacy.Optimizer


class Treatment(NamedTuple):
    """How an optimizer treats one variable.

    Attributes:
      rate_factor: on the learning rate.
      first_step: the update, from 0, that is the first to move it.
    """

    rate_factor: float = 1.0
    first_step: int = 0


# The treatment of a variable, by its name.
Treatments = Callable[[str], Treatment]


class _ByVariable(tf_keras.optimizers.legacy.Optimizer):
    """Adds to one of Keras' optimizers what differs from variable to variable.

    A factor on the gradient would be no factor on the rate: Adam and RMSProp divide it out again.
    So it is on the rate that the fused operation is called with.

    Attributes:
      treatments: of all variables.
      weight_decay: the share of a kernel, times the learning rate, that every update takes away.
    """

    treatments: Treatments = staticmethod(lambda name: Treatment())
    weight_decay = 0.0

    def _resource_apply_dense(self, grad, var, apply_state=None):
        key = (var.device, var.dtype.base_dtype)
        coefficients = apply_state[key]
        name = _name(var)
        treatment = self.treatments(name)
        if treatment != Treatment():
            coefficients = coefficients | self._changed(coefficients, treatment)
        if self.weight_decay and name.endswith("kernel"):
            # By the weights as they are before the update (Loshchilov and Hutter, algorithm 2).
            var.assign_sub(coefficients["lr_t"] * self.weight_decay * var)
        return super()._resource_apply_dense(grad, var, apply_state={key: coefficients})

    def _changed(self, coefficients: dict[str, Any], treatment: Treatment) -> dict[str, Any]:
        """Returns the coefficients that a treatment changes."""
        return {"lr_t": coefficients["lr_t"] * treatment.rate_factor}


def _name(variable: tf.Variable) -> str:
    """Returns a variable's name, whichever of its copies on several devices it is."""
    return re.sub(r"(/replica_\d+)?:0$", "", variable.name)


class SGD(_ByVariable, tf_keras.optimizers.legacy.SGD):
    """Gradient descent with momentum."""


class Adam(_ByVariable, tf_keras.optimizers.legacy.Adam):
    """Adam (Kingma and Ba, 2014)."""

    def _changed(self, coefficients, treatment):
        changed = super()._changed(coefficients, treatment)
        if treatment.first_step:
            # The averages of its gradients start at 0 with its own first update, and are corrected
            # from there: by the steps before, that update would come out three times as large, and
            # the tenth six times.
            rate_dtype = coefficients["lr_t"].dtype
            updates = tf.cast(self.iterations + 1 - treatment.first_step, rate_dtype)
            for beta in ("beta_1", "beta_2"):
                changed[f"{beta}_power"] = tf.pow(coefficients[f"{beta}_t"], updates)
        return changed


class RMSProp(_ByVariable, tf_keras.optimizers.legacy.RMSprop):
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


def sgd(momentum: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    """Returns gradient descent.

    Args:
      momentum: the share of an update that the next one keeps.
      weight_decay: see `adam`; the momentum knows nothing of it.
    """
    # The caller sets the rate before every step: a schedule in the optimizer would be a second one.
    optimizer = SGD(learning_rate=0.0, momentum=momentum)
    optimizer.weight_decay = weight_decay
    return optimizer


def adam(epsilon: float = 1e-8, weight_decay: float = 0.0) -> Optimizer:
    """Returns Adam with the usual decays.

    Args:
      epsilon: is added to the root.
      weight_decay: the share of a kernel, times the learning rate, that an update takes away beside
        the gradient's own; other than 0, it is AdamW (Loshchilov and Hutter, 2019).
    """
    optimizer = Adam(learning_rate=0.0, epsilon=epsilon)
    optimizer.weight_decay = weight_decay
    return optimizer


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
        case "adamw_optimizer":
            adamw = proto.adamw_optimizer
            optimizer = adam(adamw.epsilon, adamw.weight_decay)
        case _:
            name = "momentum_optimizer"
            momentum = proto.momentum_optimizer
            optimizer = sgd(momentum.momentum_optimizer_value, momentum.weight_decay)
    return optimizer, schedules.from_config(getattr(proto, name).learning_rate)

"""Learning rates as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from mnasdet.protos import optimizer_pb2

Schedule = Callable[[tf.Tensor], tf.Tensor]


def constant(learning_rate: float) -> Schedule:
    return lambda step: tf.constant(learning_rate, tf.float32)


def exponential_decay(
    initial: float,
    decay_steps: int,
    factor: float,
    *,
    staircase: bool = True,
    burnin_rate: float = 0.0,
    burnin_steps: int = 0,
    minimum: float = 0.0,
    warmup_steps: int = 0,
) -> Schedule:
    """Decays as `initial` * `factor` ^ (steps / `decay_steps`), counted after burn-in or warm-up.

    Args:
      staircase: whole exponents only.
      burnin_rate: up to `burnin_steps`; 0 stands for `initial`.
      minimum: the rate never goes below.
      warmup_steps: in place of a burn-in, go linearly from 0 to `initial`.
    """

    def schedule(step: tf.Tensor) -> tf.Tensor:
        if warmup_steps:
            warmup = initial / warmup_steps * tf.cast(step, tf.float32)
            return tf.where(step < warmup_steps, warmup, decayed(step - warmup_steps))
        rate = decayed(step - burnin_steps)
        return tf.where(step < burnin_steps, max(burnin_rate or initial, minimum), rate)

    def decayed(steps: tf.Tensor) -> tf.Tensor:
        exponent = steps // decay_steps if staircase else steps / decay_steps
        return tf.maximum(initial * tf.pow(factor, tf.cast(exponent, tf.float32)), minimum)

    return schedule


def manual_steps(
    initial: float, steps: Sequence[int], rates: Sequence[float], warmup: bool = False
) -> Schedule:
    """Gives `initial` up to steps[0], then rates[i] from steps[i] on.

    With `warmup`, the rate goes linearly from `initial` to rates[0] up to steps[0].
    """

    # In TensorFlow and not in Python: the step is a variable of the graph that is traced once.
    def schedule(step: tf.Tensor) -> tf.Tensor:
        passed = tf.reduce_sum(tf.cast(step >= tf.constant(steps, step.dtype), tf.int32))
        rate = tf.gather(tf.constant([initial, *rates], tf.float32), passed)
        if not warmup:
            return rate
        slope = (rates[0] - initial) / steps[0]
        return tf.where(step < steps[0], initial + slope * tf.cast(step, tf.float32), rate)

    return schedule


def cosine_decay(
    base: float,
    total_steps: int,
    warmup_rate: float = 0.0,
    warmup_steps: int = 0,
    hold_steps: int = 0,
    minimum: float = 0.0,
) -> Schedule:
    """Rises linearly from `warmup_rate` to `base`, holds it, then falls by half a cosine to
    `minimum`, at which it stays."""

    def schedule(step: tf.Tensor) -> tf.Tensor:
        step = tf.cast(step, tf.float32)
        start = warmup_steps + hold_steps
        progress = (step - start) / max(total_steps - start, 1)
        # Half a period, without restarts (Loshchilov and Hutter, 2017).
        share = (1 + tf.cos(math.pi * tf.clip_by_value(progress, 0.0, 1.0))) / 2
        rate = minimum + (base - minimum) * share
        if warmup_steps:
            warmup = warmup_rate + (base - warmup_rate) / warmup_steps * step
            rate = tf.where(step < warmup_steps, warmup, rate)
        return rate

    return schedule


def from_config(proto: optimizer_pb2.LearningRate) -> Schedule:
    """Builds the schedule of a `learning_rate` message."""
    match proto.WhichOneof("learning_rate"):
        case "constant_learning_rate":
            return constant(proto.constant_learning_rate.learning_rate)
        case "exponential_decay_learning_rate":
            exponential = proto.exponential_decay_learning_rate
            return exponential_decay(
                exponential.initial_learning_rate,
                exponential.decay_steps,
                exponential.decay_factor,
                staircase=exponential.staircase,
                burnin_rate=exponential.burnin_learning_rate,
                burnin_steps=exponential.burnin_steps,
                minimum=exponential.min_learning_rate,
                warmup_steps=exponential.warmup_steps,
            )
        case "manual_step_learning_rate":
            manual = proto.manual_step_learning_rate
            return manual_steps(
                manual.initial_learning_rate,
                [entry.step for entry in manual.schedule],
                [entry.learning_rate for entry in manual.schedule],
                manual.warmup,
            )
    cosine = proto.cosine_decay_learning_rate
    return cosine_decay(
        cosine.learning_rate_base,
        cosine.total_steps,
        cosine.warmup_learning_rate,
        cosine.warmup_steps,
        cosine.hold_base_rate_steps,
        cosine.min_learning_rate,
    )

"""One training step: losses, gradients, update."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf
import tf_keras

from mnasdet.errors import ConfigError
from mnasdet.networks import random_draws
from mnasdet.protos import train_pb2
from mnasdet.tasks import Loss, Task
from mnasdet.training import (
    checkpoints,
    distribution,
    fine_tuning,
    freezing,
    non_finite,
    optimizers,
    parts,
    precision,
    variable_patterns,
)
from mnasdet.training.freezing import Freezing

if TYPE_CHECKING:
    from mnasdet.training import clustering, pruning

# The names of the loss and of the norm of its gradient, before that is clipped, among the values of
# a step.
_LOSS, _NORM = "Loss/total_loss", "gradient_norm"

# The losses of a replica's examples, by their names in logs, and the gradients of their sum.
SharesAndGradients = tuple[dict[str, tf.Tensor], list[tf.Tensor]]
Differentiated = Callable[[parts.Batch], SharesAndGradients]


class Learner:
    """A task's model in training. Make it inside the strategy's scope.

    Attributes:
      checkpoint: everything that a later run needs to go on.
    """

    def __init__(
        self,
        task: Task,
        train_config: train_pb2.TrainConfig,
        *,
        keep_averages: bool = False,
        quantization_delay: int = 0,
        jit_compile: bool | None = None,
    ):
        """
        Args:
          keep_averages: keep the moving averages of the weights for evaluation.
          quantization_delay: the steps in which a quantised model only observes ranges.
          jit_compile: whether XLA compiles the losses and their gradients; if left out,
            `train_config` decides it.

        Raises:
          ConfigError: as `trained_variables`.
        """
        self.model = task.model
        self._losses = _seeded(task.losses)
        self._strategy = tf.distribute.get_strategy()
        self._regularize = train_config.add_regularization_loss
        self._train_config = train_config
        self._bias_multiplier = train_config.bias_grad_multiplier
        self._clip_norm = train_config.gradient_clipping_by_norm
        self._variables = trained_variables(
            self.model, train_config.update_trainable_variables, train_config.freeze_variables
        )
        self._step = _counter("step")
        # The first steps of which the loss, or a gradient, was bad. Kept on the device: to read the
        # loss after every step would make an accelerator wait.
        self._bad_steps = {name: _counter("bad_step") for name in (_LOSS, _NORM)}
        self._pruner, self._clusters = self._compression(train_config)
        self._optimizer, self._schedule = optimizers.from_config(train_config.optimizer)
        frozen = freezing.from_config(self.model, self._variables, train_config)
        self._optimizer.treatments = fine_tuning.treatments(self.model, train_config, frozen)
        fine_tuning.warn_of_two_decays(self.model, train_config, self._optimizer)
        # Ahead of the first step, which would be traced twice if it made variables.
        self._optimizer._create_all_weights(
            self._clusters.trained(self._variables) if self._clusters else self._variables
        )
        self._optimizer = precision.scaling(self._optimizer, train_config)
        self._frozen, self._observed_steps = frozen, quantization_delay
        weights = checkpoints.variables_by_name(self.model)
        self._averages: dict[str, tf.Variable] = {}
        self._decay = train_config.optimizer.moving_average_decay
        if keep_averages:
            self._averages = {
                name: tf.Variable(value, trainable=False) for name, value in weights.items()
            }
        self.checkpoint = tf.train.Checkpoint(
            optimizer=self._optimizer,
            step=self._step,
            **{checkpoints.WEIGHTS: weights},
            **({checkpoints.AVERAGES: self._averages} if keep_averages else {}),
            **({"masks": self._pruner.masks} if self._pruner else {}),
            **(
                {"originals": self._clusters.originals, "centroids": self._clusters.centroids}
                if self._clusters
                else {}
            ),
        )
        # Nowhere does XLA know the sums over replicas of a synchronised batch normalisation.
        self._sums_inside = self._strategy.num_replicas_in_sync > 1 and any(
            getattr(layer, "synchronized", False) for layer in self.model.layers
        )
        if jit_compile is None:
            jit_compile = task.compiles and not self._sums_inside and _compiles(train_config)
        self.update = self._stepping(jit_compile, frozen)
        if quantization_delay:
            observe = _observing(self._stepping(jit_compile, frozen))
            self.update = self._first(quantization_delay, observe, self.update)

    @property
    def step(self) -> int:
        """Returns how many updates were made."""
        return int(self._step.numpy())

    def _stepping(self, jit_compile: bool, frozen: Freezing | None) -> Callable:
        """Returns a new function that makes an update; the first ones leave `frozen` as it is."""
        update = self._traced(jit_compile)
        if not frozen:
            return update
        with self._leaving(frozen):
            less = self._traced(jit_compile)

        def step(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            with self._leaving(frozen):
                return less(batch)

        return self._first(frozen.until, step, update)

    @contextlib.contextmanager
    def _leaving(self, frozen: Freezing) -> Iterator[None]:
        """Makes steps that are traced inside leave `frozen` as it is."""
        trained, self._variables = self._variables, frozen.moving
        try:
            with frozen.in_force():
                yield
        finally:
            self._variables = trained

    def _traced(self, jit_compile: bool) -> Callable:
        """Returns a new function that makes an update, `_update`."""
        losses = self._losses
        if jit_compile:
            # Around the replicas XLA could not compile: it knows no sum over several devices.
            losses = parts.compiled(losses)
        averages = parts.MovingAverages(self.model)
        losses = parts.side_by_side(losses, self._train_config.parallel_parts, averages)
        differentiated = functools.partial(self._in_one_pass, losses)
        if (steps := self._train_config.gradient_accumulation_steps) > 1:
            accumulation = parts.Accumulation(
                losses,
                steps,
                self._variables,
                averages,
                scaled=functools.partial(precision.scaled, self._optimizer),
                unrolled=self._sums_inside,
            )
            differentiated = functools.partial(self._accumulated, accumulation)
        return tf.function(functools.partial(self._update, differentiated), autograph=False)

    def _compression(
        self, train_config: train_pb2.TrainConfig
    ) -> tuple[pruning.Pruner | None, clustering.Clusters | None]:
        """Returns the parts that make kernels sparse or of few values, where the config asks."""
        pruner = clusters = None
        # tfmot takes seconds to load.
        if train_config.HasField("pruning"):
            from mnasdet.training import pruning

            pruner = pruning.from_config(train_config.pruning, self._variables, self._step)
        if train_config.HasField("weight_clustering"):
            from mnasdet.training import clustering

            num_clusters = train_config.weight_clustering.num_clusters
            clusters = clustering.Clusters(self._variables, num_clusters)
        return pruner, clusters

    def _first(self, steps: int, before: Callable, after: Callable) -> Callable:
        """Returns a step that is `before` for a number of steps of the training, then `after`."""
        passed = False

        def step(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            nonlocal passed
            # To read the step makes an accelerator wait, so it is not read for longer than needed.
            passed = passed or self.step >= steps
            return after(batch) if passed else before(batch)

        return step

    def _update(
        self, differentiated: Differentiated, batch: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Makes one update and returns the losses and the learning rate.

        Args:
          batch: examples as `Task.targets` makes them, [batch, ...] each; of one replica each.
        """
        learning_rate = self._schedule(self._step)
        self._optimizer.learning_rate.assign(learning_rate)
        update = functools.partial(self._replica_update, differentiated)
        values = self._strategy.run(update, args=(batch,))
        self._step.assign_add(1)
        if self._pruner:
            self._pruner.apply(self._averages)
        if self._clusters:
            self._clusters.apply()
        # The same on all replicas.
        values = {
            name: self._strategy.experimental_local_results(value)[0]
            for name, value in values.items()
        }
        for name, bad_step in self._bad_steps.items():
            is_first = ~tf.math.is_finite(values[name]) & (bad_step == 0)
            bad_step.assign(tf.where(is_first, self._step, bad_step))
        return values | {"learning_rate": learning_rate}

    @property
    def bad_step(self) -> int:
        """Returns the first step that gave a loss or a gradient that is NaN or infinite; else 0.

        The weights have stayed as they were before it.
        """
        steps = (int(step.numpy()) for step in self._bad_steps.values())
        return min(filter(None, steps), default=0)

    def fault(self) -> str:
        """Returns which step gave a loss, or which variable has a value, that is NaN or infinite.

        It is empty if none did. It has to be called before anything is evaluated or saved.
        """
        if bad_step := self.bad_step:
            name = "the loss" if self._bad_steps[_LOSS].numpy() == bad_step else "a gradient"
            return f"{name} became NaN or infinite at step {bad_step}"
        variables = [*checkpoints.variables_by_name(self.model).values(), *self._averages.values()]
        for variable in [*variables, *self._optimizer.variables()]:
            if variable.dtype.is_floating and not np.isfinite(variable.numpy()).all():
                name = variable.name.removesuffix(":0")
                return f"{name} became NaN or infinite, at step {self.step} at the latest"
        return ""

    def first_bad_tensor(self, batch: dict[str, tf.Tensor]) -> str | None:
        """Makes the losses and gradients of `bad_step` again and says which was bad first.

        Args:
          batch: that of the step, as for `update`.

        Returns:
          The name of the first tensor that is NaN or infinite; empty if all are finite now, None
          where that cannot be found out: one operation at a time, replicas sum nothing inside the
          network, and a TPU runs nothing.
        """
        if self._sums_inside or isinstance(self._strategy, tf.distribute.TPUStrategy):
            return None
        found: list[str] = []
        steps = self._train_config.gradient_accumulation_steps
        losses = parts.side_by_side(
            self._losses, self._train_config.parallel_parts, parts.MovingAverages(self.model)
        )

        def look(batch: dict[str, tf.Tensor]) -> None:
            split = {name: tf.split(value, steps) for name, value in batch.items()}
            for part in range(steps):
                of_part = {name: values[part] for name, values in split.items()}
                tensor = non_finite.first_tensor(
                    self.model, losses, self._variables, of_part, regularize=self._regularize
                )
                found.append(tensor)

        with self._as_in(self.bad_step):
            self._strategy.run(look, args=(batch,))
        return next(filter(None, found), "")

    @contextlib.contextmanager
    def _as_in(self, step: int) -> Iterator[None]:
        """Lets the network compute as it does in a step of the training."""
        with contextlib.ExitStack() as stack:
            if self._frozen and step <= self._frozen.until:
                stack.enter_context(self._leaving(self._frozen))
            if step <= self._observed_steps:
                from mnasdet.networks.fake_quantization import observing

                stack.enter_context(observing())
            yield

    def _replica_update(
        self, differentiated: Differentiated, batch: dict[str, tf.Tensor]
    ) -> dict[str, tf.Tensor]:
        """Updates the weights by the examples of all replicas; `batch` has those of this one."""
        shares, gradients = differentiated(batch)
        gradients = precision.unscaled(self._optimizer, distribution.summed(gradients))
        # 0 stands for 1, as in the OD API.
        if self._bias_multiplier:
            gradients = [
                gradient * self._bias_multiplier if _is_bias(variable) else gradient
                for gradient, variable in zip(gradients, self._variables, strict=True)
            ]
        norm = tf.linalg.global_norm(gradients)
        if self._clip_norm:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm, norm)
        updates = list(zip(self._variables, gradients, strict=True))
        if self._clusters:
            updates = self._clusters.updates(updates)
        variables = [variable for variable, _ in updates]

        def apply(gradients: list[tf.Tensor]) -> None:
            # The gradients are summed over replicas already.
            self._optimizer.apply_gradients(
                zip(gradients, variables, strict=True), experimental_aggregate_gradients=False
            )

        shares[_LOSS] = tf.add_n(list(shares.values()))
        values = dict(zip(shares, distribution.summed(list(shares.values())), strict=True))
        values[_NORM] = precision.judged(self._optimizer, norm)
        # From a bad step on, the weights stay those that it was made with, so that it can be made
        # again.
        is_sound = tf.reduce_all(
            [
                tf.math.is_finite(values[name]) & (step == 0)
                for name, step in self._bad_steps.items()
            ]
        )
        distribution.call_if(is_sound, apply, [gradient for _, gradient in updates])
        return values

    def _in_one_pass(self, losses: parts.Losses, batch: parts.Batch) -> SharesAndGradients:
        """Returns what this replica's examples have of the losses, and the scaled gradients."""
        # Without the rest, nothing is computed for the gradients of what is frozen.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            own = losses(batch)
            normalizers = distribution.summed([loss.normalizer for loss in own.values()])
            shares = {
                f"Loss/{name}": loss.total / tf.maximum(normalizer, 1.0)
                for (name, loss), normalizer in zip(own.items(), normalizers, strict=True)
            }
            shares["Loss/regularization_loss"] = self._regularization()
            total = precision.scaled(self._optimizer, tf.add_n(list(shares.values())))
        return shares, tape.gradient(total, self._variables)

    def _accumulated(
        self, accumulation: parts.Accumulation, batch: parts.Batch
    ) -> SharesAndGradients:
        """Returns the same as `_in_one_pass`, in the memory of a part of the batch."""
        sums = accumulation(batch)
        normalizers = [tf.maximum(one, 1.0) for one in distribution.summed(sums.normalizers)]
        shares = {
            f"Loss/{name}": sums.totals[name] / normalizer
            for names, normalizer in zip(accumulation.groups, normalizers, strict=True)
            for name in names
        }
        with tf.GradientTape() as tape:
            shares["Loss/regularization_loss"] = self._regularization()
            regularization = precision.scaled(self._optimizer, shares["Loss/regularization_loss"])
        gradients = tape.gradient(regularization, self._variables, unconnected_gradients="zero")
        for of_group, normalizer in zip(sums.gradients, normalizers, strict=True):
            gradients = [
                gradient + own / normalizer
                for gradient, own in zip(gradients, of_group, strict=True)
            ]
        return shares, gradients

    def _regularization(self) -> tf.Tensor:
        """Returns this replica's share of the regularization loss: every replica has all of it."""
        if not (self._regularize and self.model.losses):
            return tf.constant(0.0)
        return tf.add_n(self.model.losses) / self._strategy.num_replicas_in_sync

    def average(self, step: int) -> None:
        """Moves the averages of the weights, where they are kept, after update number `step`.

        Past the first hundred updates they move at every tenth by ten times as much: small
        operations on every weight cost a twentieth of a step.
        """
        often = step <= 100
        if self._averages and (often or step % 10 == 0):
            # Short runs need shorter averages: tf.train.ExponentialMovingAverage's rule.
            decay = min(self._decay, (1 + step) / (10 + step))
            self._move_averages(tf.constant(decay if often else decay**10))

    @tf.function(autograph=False)
    def _move_averages(self, decay: tf.Tensor) -> None:
        weights = checkpoints.variables_by_name(self.model)
        for name, average in self._averages.items():
            average.assign_sub((1 - decay) * (average - weights[name]))

    def averaged_weights(self) -> contextlib.AbstractContextManager[None]:
        """Puts the moving averages, where they are kept, in the weights' place for a while."""
        return _swapped(self._averages, checkpoints.variables_by_name(self.model))


def _compiles(train_config: train_pb2.TrainConfig) -> bool:
    """Returns whether XLA is to compile the step of this config, as far as it can."""
    if train_config.jit_compile == train_pb2.TrainConfig.AUTO:
        # On a CPU, XLA makes depthwise convolutions several times slower.
        return bool(tf.config.list_logical_devices("GPU"))
    return train_config.jit_compile == train_pb2.TrainConfig.ON


def _observing(step: Callable) -> Callable:
    """Makes a step that is traced to observe the ranges of a quantised model and round nothing."""
    from mnasdet.networks.fake_quantization import observing

    def observe(batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        with observing():
            return step(batch)

    return observe


def _seeded(losses: parts.Losses) -> parts.Losses:
    """Makes what a network draws in training a function of the examples, if they have seeds."""

    def seeded(batch: parts.Batch) -> Mapping[str, Loss]:
        with random_draws.seeded(batch["seed"][0] if "seed" in batch else None):
            return losses(batch)

    return seeded


def _counter(name: str) -> tf.Variable:
    """Returns a variable that all replicas count alike."""
    return tf.Variable(
        0,
        dtype=tf.int64,
        trainable=False,
        name=name,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def trained_variables(
    model: tf_keras.Model, update: Sequence[str] = (), freeze: Sequence[str] = ()
) -> list[tf.Variable]:
    """Returns the variables that training changes.

    Args:
      update: regular expressions; only variables in whose names one is found are trained. Empty:
        all are.
      freeze: likewise, what is not trained, whatever `update` says.

    Raises:
      ConfigError: an expression is found in no name, or no variable is left.
    """
    found = variable_patterns.found

    def is_trained(name: str) -> bool:
        return found(update or [""], name) and not found(freeze, name)

    names = list(checkpoints.variables_by_name(model))
    for field, patterns in (("update_trainable_variables", update), ("freeze_variables", freeze)):
        variable_patterns.check(field, patterns, names)
    trained = [v for v in model.trainable_variables if is_trained(v.name.removesuffix(":0"))]
    if not trained:
        raise ConfigError(
            "train_config.update_trainable_variables and freeze_variables leave nothing to train"
        )
    return trained


def _is_bias(variable: tf.Variable) -> bool:
    """Tells whether a variable is a convolution's bias, and not a normalisation's offset."""
    return variable.name.removesuffix(":0").endswith("/bias")


@contextlib.contextmanager
def _swapped(averages: dict[str, tf.Variable], weights: dict[str, tf.Variable]):
    kept = {name: weights[name].numpy() for name in averages}
    try:
        for name, average in averages.items():
            weights[name].assign(average)
        yield
    finally:
        for name, value in kept.items():
            weights[name].assign(value)

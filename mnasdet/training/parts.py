"""A batch in parts: side by side, or one after the other in the memory of one part."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from mnasdet.tasks import Loss

Batch = Mapping[str, tf.Tensor]

# A batch to the losses by their names.
Losses = Callable[[Batch], Mapping[str, Loss]]


class MovingAverages:
    """The averages that a model's forward passes move: those of batch normalisation, and ranges.

    The passes over the parts of a batch count as one: each starts from the same averages, and the
    mean over all is what they come to.
    """

    def __init__(self, model: tf_keras.Model):
        self._variables = [
            variable
            for layer in model.layers
            # A frozen one moves nothing.
            if layer.trainable
            for variable in layer.non_trainable_variables
            if variable.synchronization == tf.VariableSynchronization.ON_READ
        ]

    def read(self) -> list[tf.Tensor]:
        """Returns the values of now."""
        return [variable.read_value() for variable in self._variables]

    def write(self, values: Sequence[tf.Tensor]) -> None:
        """Puts values in the place of those of now."""
        for variable, value in zip(self._variables, values, strict=True):
            variable.assign(value)


def side_by_side(losses: Losses, count: int, averages: MovingAverages) -> Losses:
    """Returns the losses of a batch of which a CPU computes `count` parts at the same time."""
    if count == 1:
        return losses

    def of_batch(batch: Batch) -> dict[str, Loss]:
        split = {name: tf.split(value, count) for name, value in batch.items()}
        before = averages.read()
        parts, moved = [], []
        for part in range(count):
            if part:
                averages.write(before)
            parts.append(losses({name: values[part] for name, values in split.items()}))
            moved.append(averages.read())
        averages.write([tf.add_n(values) / count for values in zip(*moved, strict=True)])
        return joined(parts)

    return of_batch


def joined(parts: Sequence[Mapping[str, Loss]]) -> dict[str, Loss]:
    """Returns the losses of a batch from those of its parts.

    Losses that share a normaliser, the same tensor, go on sharing one.
    """
    sums: dict[tuple[int, ...], tf.Tensor] = {}
    result = {}
    for name in parts[0]:
        normalizers = [part[name].normalizer for part in parts]
        shared = tuple(map(id, normalizers))
        if shared not in sums:
            sums[shared] = tf.add_n([tf.convert_to_tensor(one) for one in normalizers])
        result[name] = Loss(tf.add_n([part[name].total for part in parts]), sums[shared])
    return result


def compiled(losses: Losses) -> Losses:
    """Returns losses that XLA compiles; those that shared a normaliser still do."""
    places: dict[str, int] = {}

    @functools.partial(tf.function, jit_compile=True, autograph=False)
    def totals_and_normalizers(batch: Batch) -> tuple[dict[str, tf.Tensor], list[tf.Tensor]]:
        of_batch = losses(batch)
        normalizers: dict[int, Any] = {}
        for name, loss in of_batch.items():
            normalizers.setdefault(id(loss.normalizer), loss.normalizer)
            places[name] = list(normalizers).index(id(loss.normalizer))
        return {name: loss.total for name, loss in of_batch.items()}, [*normalizers.values()]

    def of_batch(batch: Batch) -> dict[str, Loss]:
        totals, normalizers = totals_and_normalizers(batch)
        return {name: Loss(total, normalizers[places[name]]) for name, total in totals.items()}

    return of_batch


class Sums(NamedTuple):
    """The sums over the parts of a batch.

    Attributes:
      totals: of the losses, by name.
      normalizers: one for each group of losses that share it.
      gradients: of the summed totals of each group.
    """

    totals: dict[str, tf.Tensor]
    normalizers: list[tf.Tensor]
    gradients: list[list[tf.Tensor]]


class Accumulation:
    """Runs the parts of a batch through the network one after the other."""

    def __init__(
        self,
        losses: Losses,
        steps: int,
        variables: Sequence[tf.Variable],
        averages: MovingAverages,
        *,
        scaled: Callable[[tf.Tensor], tf.Tensor] = lambda total: total,
        unrolled: bool = False,
    ):
        """
        Args:
          steps: the number of parts, a divisor of the batch.
          variables: those that gradients are for.
          scaled: what is done to a total before its gradient is taken.
          unrolled: write the parts one after the other into the graph, and not a loop: inside of
            one replicas cannot add up anything.
        """
        self._losses = losses
        self._steps = steps
        self._variables = variables
        self._averages = averages
        self._scaled = scaled
        self._unrolled = unrolled
        # The names of the losses of each group; known once a part was traced.
        self.groups: list[list[str]] = []

    def __call__(self, batch: Batch) -> Sums:
        """Returns the sums over all parts."""
        parts = {
            name: tf.reshape(value, [self._steps, -1, *value.shape[1:]])
            for name, value in batch.items()
        }
        before = self._averages.read()
        sums, moved = (self._python_loop if self._unrolled else self._graph_loop)(parts, before)
        self._averages.write([total / self._steps for total in moved])
        return sums

    def _python_loop(self, parts: Batch, before: list[tf.Tensor]) -> tuple[Sums, list[tf.Tensor]]:
        total: Any = None
        for step in range(self._steps):
            # Else TensorFlow would run all parts at once, in the memory of all.
            with tf.control_dependencies(tf.nest.flatten(total) if step else []):
                part = self._part({name: value[step] for name, value in parts.items()}, before)
            total = tf.nest.map_structure(tf.add, total, part) if step else part
        return total

    def _graph_loop(self, parts: Batch, before: list[tf.Tensor]) -> tuple[Sums, list[tf.Tensor]]:
        # A function, because a loop has to know the form of its sums before its body is traced.
        first = {name: value[0] for name, value in parts.items()}
        part = tf.function(self._part, autograph=False).get_concrete_function(first, before)
        zeros = tf.nest.map_structure(
            lambda spec: tf.zeros(spec.shape, spec.dtype), part.structured_outputs
        )

        def body(step: tf.Tensor, total: Any) -> tuple[tf.Tensor, Any]:
            of_part = part({name: value[step] for name, value in parts.items()}, before)
            return step + 1, tf.nest.map_structure(tf.add, total, of_part)

        _, total = tf.while_loop(
            lambda step, total: step < self._steps, body, (0, zeros), parallel_iterations=1
        )
        return total

    def _part(self, batch: Batch, before: list[tf.Tensor]) -> tuple[Sums, list[tf.Tensor]]:
        """Returns the sums of one part, and what it moves the averages to from `before`."""
        self._averages.write(before)
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            losses = self._losses(batch)
            groups: dict[int, list[str]] = {}
            for name, loss in losses.items():
                groups.setdefault(id(loss.normalizer), []).append(name)
            self.groups = list(groups.values())
            totals = [
                self._scaled(tf.add_n([losses[name].total for name in names]))
                for names in self.groups
            ]
        # One pass back for each normaliser: how much a part counts is known after the last one.
        gradients = [
            tape.gradient(total, self._variables, unconnected_gradients="zero") for total in totals
        ]
        sums = Sums(
            {name: loss.total for name, loss in losses.items()},
            [tf.convert_to_tensor(losses[names[0]].normalizer) for names in self.groups],
            gradients,
        )
        return sums, self._averages.read()

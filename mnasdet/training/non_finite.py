"""Finds the first tensor of a training step that is NaN or infinite."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from mnasdet.tasks import Loss


def first_tensor(
    model: tf_keras.Model,
    losses: Callable[[dict[str, tf.Tensor]], Mapping[str, Loss]],
    variables: Sequence[tf.Variable],
    batch: dict[str, tf.Tensor],
    *,
    regularize: bool = True,
) -> str:
    """Computes the losses of a batch and their gradients, one operation at a time.

    Args:
      model: the network that `losses` calls.
      variables: what the gradients are of.
      regularize: add the network's own losses, as training does.

    Returns:
      What is not finite first, on the way forward through the network and then back; empty if all
      is finite.
    """
    for name, value in batch.items():
        if _is_bad(value):
            return f"the input {name}"
    with tf.GradientTape() as tape:
        with _watched(model) as found:
            of_batch = losses(batch)
        if found:
            return found[0]
        for name, loss in of_batch.items():
            if _is_bad(loss.total):
                return f"the {name}"
        shares = [loss.total / tf.maximum(loss.normalizer, 1.0) for loss in of_batch.values()]
        total = tf.add_n([*shares, *(model.losses if regularize else ())])
    if _is_bad(total):
        return "the regularization_loss"
    gradients = tape.gradient(total, list(variables))
    # The last one in the network is the first one on the way back.
    for variable, gradient in reversed(list(zip(variables, gradients, strict=True))):
        if gradient is not None and _is_bad(gradient):
            return f"the gradient of {_name(variable)}"
    return ""


@contextlib.contextmanager
def _watched(model: tf_keras.Model) -> Iterator[list[str]]:
    """Lists the layers whose outputs are not finite, as they are called; run eagerly."""
    found: list[str] = []

    def call(layer: tf_keras.layers.Layer, *arguments: Any, **named: Any) -> Any:
        outputs = type(layer).call(layer, *arguments, **named)
        if any(map(_is_bad, tf.nest.flatten(outputs))):
            bad = [f"the weight {_name(weight)}" for weight in layer.weights if _is_bad(weight)]
            found.append(bad[0] if bad else f"the output of {layer.name}")
        return outputs

    for layer in model.layers:
        layer.call = functools.partial(call, layer)
    try:
        yield found
    finally:
        for layer in model.layers:
            del layer.call


def _is_bad(tensor: Any) -> bool:
    tensor = tf.convert_to_tensor(tensor)
    return tensor.dtype.is_floating and not np.isfinite(tf.cast(tensor, tf.float32)).all()


def _name(variable: tf.Variable) -> str:
    return variable.name.removesuffix(":0")

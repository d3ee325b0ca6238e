"""The Keras reading of a supernet: one layer a choice, which holds all of its branches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from mnasdet.networks import random_draws
from mnasdet.networks.builder import Node
from mnasdet.networks.choices import Branch, Mixing, branches, rewritten

# The weights of a choice's candidates, before the softmax.
ALPHA = "alpha"

# The inputs of a branch to its output.
_Run = Callable[[list[tf.Tensor]], tf.Tensor]


def collapsed(outputs: Sequence[Node]) -> list[Node]:
    """Returns a graph in which every choice is one node, "mixed", with its branches inside.

    The node reads what the branches read; its attribute `branches` has them.
    """
    found = branches(outputs)

    def mixed(node: Node, new: Mapping[Node, Node]) -> Node | None:
        if node not in found:
            return None
        read = dict.fromkeys(x for branch in found[node] for x in branch.inputs)
        attrs = {"branches": found[node], "read": tuple(read)}
        return Node("mixed", node.name, tuple(new[x] for x in read), node.shape, attrs)

    return rewritten(outputs, mixed)


class MixedOperation(tf_keras.layers.Layer):
    """A choice of a supernet: the features that its branches read to one feature.

    In training it computes as `Mixing` says. At inference it adds up all branches with "softmax",
    and runs the one with the largest alpha otherwise.

    Attributes:
      alpha: [candidates], the logits of the candidates' weights; variable ".../alpha".
    """

    def __init__(
        self, node: Node, made: Mapping[str, tf_keras.layers.Layer], mixing: Mixing, **kwargs: Any
    ):
        """
        Args:
          node: one of op "mixed".
          made: the layers of the branches, by name.
        """
        super().__init__(**kwargs)
        self._branches: list[Branch] = node.attrs["branches"]
        self._read = node.attrs["read"]
        # A list: Keras finds variables and losses there.
        self.layers = [
            made[name]
            for name in dict.fromkeys(n.name for branch in self._branches for n in branch.nodes)
        ]
        self._mixing = mixing

    def build(self, input_shape: Any) -> None:
        self.alpha = self.add_weight(ALPHA, (len(self._branches),), initializer="zeros")
        for node in (node for branch in self._branches for node in branch.nodes):
            layer = self._layer(node)
            if not layer.built:
                shapes = [tf.TensorShape((None, *node_in.shape)) for node_in in node.inputs]
                # From the root: the variables have the names of a network without choices.
                with tf.name_scope(f"{node.name}/"):
                    layer.build(shapes if len(shapes) > 1 else shapes[0])
        super().build(input_shape)

    def _layer(self, node: Node) -> tf_keras.layers.Layer:
        return next(layer for layer in self.layers if layer.name == node.name)

    def call(self, inputs: Any, training: bool | None = None) -> tf.Tensor:
        tensors = dict(zip(self._read, tf.nest.flatten(inputs), strict=True))
        runs = [
            functools.partial(
                self._run(branch, training), [tensors[node] for node in branch.inputs]
            )
            for branch in self._branches
        ]
        weights = tf.nn.softmax(tf.cast(self.alpha, tf.float32))
        if self._mixing.kind == "softmax":
            outputs = [run() for run in runs]
            return tf.add_n(
                [y * tf.cast(w, y.dtype) for y, w in zip(outputs, tf.unstack(weights), strict=True)]
            )
        if not training:
            # The candidate that a derived network would have.
            return tf.switch_case(tf.argmax(self.alpha, output_type=tf.int32), runs)
        draws = random_draws.uniform((len(runs),))
        if self._mixing.kind == "uniform":
            return tf.switch_case(tf.argmax(draws, output_type=tf.int32), runs)
        # The largest of logits plus Gumbel noise is drawn with the probabilities of the softmax.
        noise = -tf.math.log(-tf.math.log(tf.clip_by_value(draws, 1e-20, 1 - 1e-7)))
        drawn = tf.argmax(tf.stop_gradient(self.alpha) + noise, output_type=tf.int32)
        y = tf.switch_case(drawn, runs)
        # One, with the gradient of the drawn probability.
        weight = tf.gather(weights, drawn)
        return y * tf.cast(1.0 + weight - tf.stop_gradient(weight), y.dtype)

    def _run(self, branch: Branch, training: bool | None) -> _Run:
        def run(tensors: list[tf.Tensor]) -> tf.Tensor:
            values = dict(zip(branch.inputs, tensors, strict=True))
            for node in branch.nodes:
                arguments = [values[node_in] for node_in in node.inputs]
                layer = self._layer(node)
                kwargs = {"training": training} if layer._expects_training_arg else {}
                values[node] = layer(arguments if len(arguments) > 1 else arguments[0], **kwargs)
            return values[branch.output]

        recompute = self._mixing.recompute and self._mixing.kind == "softmax"
        if not (recompute and training and branch.nodes):
            return run
        return _recomputed(run, [self._layer(node) for node in branch.nodes])


def _recomputed(run: _Run, layers: Sequence[tf_keras.layers.Layer]) -> _Run:
    """Makes a branch keep nothing of its forward pass; the backward pass computes it once more."""
    weights = [v for layer in layers for v in layer.trainable_variables]
    # The second pass must not move the averages of batch normalisation again.
    averages = [v for layer in layers for v in layer.non_trainable_variables]

    def recomputed(tensors: list[tf.Tensor]) -> tf.Tensor:
        @tf.custom_gradient
        def forward(*tensors: tf.Tensor) -> tuple[tf.Tensor, Callable]:
            def gradient(dy: tf.Tensor, variables: Sequence[tf.Variable] = ()) -> Any:
                before = [average.read_value() for average in averages]
                # After the gradient is there, or TensorFlow would take this pass for the first one.
                with tf.control_dependencies([dy, *before]):
                    again = [tf.identity(tensor) for tensor in tensors]
                with tf.GradientTape() as tape:
                    tape.watch([*again, *weights])
                    y = run(again)
                found = tape.gradient(y, [again, list(variables)], dy)
                with tf.control_dependencies(tf.nest.flatten(found)):
                    for average, value in zip(averages, before, strict=True):
                        average.assign(value)
                return (found[0], found[1]) if variables else found[0]

            return run(list(tensors)), gradient

        return forward(*tensors)

    return recomputed

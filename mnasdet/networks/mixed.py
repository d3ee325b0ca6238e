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

# The features that branches read.
_Tensors = Mapping[Node, tf.Tensor]


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
        weights = tf.nn.softmax(tf.cast(self.alpha, tf.float32))
        if self._mixing.kind == "softmax":
            if self._mixing.recompute and training:
                return self._recomputed(weights, tensors)
            return self._sum(weights, tensors, training)
        runs = [
            functools.partial(self._run, branch, tensors, training) for branch in self._branches
        ]
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

    def _run(self, branch: Branch, tensors: _Tensors, training: bool | None) -> tf.Tensor:
        values = dict(tensors)
        for node in branch.nodes:
            arguments = [values[node_in] for node_in in node.inputs]
            layer = self._layer(node)
            kwargs = {"training": training} if layer._expects_training_arg else {}
            values[node] = layer(arguments if len(arguments) > 1 else arguments[0], **kwargs)
        return values[branch.output]

    def _weighted(
        self, branch: Branch, weight: tf.Tensor, tensors: _Tensors, training: bool | None
    ) -> tf.Tensor:
        y = self._run(branch, tensors, training)
        return y * tf.cast(weight, y.dtype)

    def _sum(self, weights: tf.Tensor, tensors: _Tensors, training: bool | None) -> tf.Tensor:
        each = zip(self._branches, tf.unstack(weights), strict=True)
        return tf.add_n([self._weighted(branch, own, tensors, training) for branch, own in each])

    def _recomputed(self, weights: tf.Tensor, tensors: _Tensors) -> tf.Tensor:
        """Adds up the branches and keeps nothing of that; the backward pass computes each branch
        once more, one after the other."""

        @tf.custom_gradient
        def forward(weights: tf.Tensor, *read: tf.Tensor) -> tuple[tf.Tensor, Callable]:
            def gradient(dy: tf.Tensor, variables: Sequence[tf.Variable] = ()) -> Any:
                # The second pass must not move the averages of batch normalisation again.
                averages = [(one, one.read_value()) for one in self.non_trainable_variables]
                done = [dy, *(before for _, before in averages)]
                found = []
                for branch, weight in zip(self._branches, tf.unstack(weights), strict=True):
                    again = _after(done, [weight, *read])
                    with tf.GradientTape() as tape:
                        tape.watch([*again, *variables])
                        own = dict(zip(self._read, again[1:], strict=True))
                        y = self._weighted(branch, again[0], own, training=True)
                    of_branch = tape.gradient(y, [*again, *variables], dy)
                    done = [one for one in of_branch if one is not None]
                    found.append(of_branch)
                of_weights, *others = zip(*found, strict=True)
                sums = [tf.add_n([one for one in each if one is not None]) for each in others]
                with tf.control_dependencies(done):
                    for average, before in averages:
                        average.assign(before)
                of_read = [tf.stack(of_weights), *sums[: len(read)]]
                return (of_read, sums[len(read) :]) if variables else of_read

            return self._sum(weights, dict(zip(self._read, read, strict=True)), True), gradient

        return forward(weights, *tensors.values())


def _after(done: Sequence[tf.Tensor], tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns copies that are there after `done`: no compiler merges a pass over them with one
    over the originals."""
    with tf.control_dependencies(done):
        # XLA ignores control dependencies, but keeps a number times 0.0: it may be infinite.
        zero = 0.0 * tf.cast(tf.reshape(done[0], [-1])[0], tf.float32)
        return [tensor + tf.cast(zero, tensor.dtype) for tensor in tensors]

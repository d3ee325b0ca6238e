"""A network function as one Keras layer."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_keras

from mnasdet.errors import LayerError
from mnasdet.networks.builder import Builder, Node, reachable
from mnasdet.networks.keras_builder import keras_layers, replay


@dataclass(frozen=True)
class _Graph:
    """A recorded network, in an object of its own: Keras wraps the lists that a layer has."""

    inputs: list[Node]
    outputs: list[Node]
    is_list: bool

    def shaped(self, outputs: list[Any]) -> Any:
        """Returns the values of `outputs` as `GraphLayer.network` gave the nodes."""
        return outputs if self.is_list else outputs[0]


class GraphLayer(tf_keras.layers.Layer):
    """A layer that records its network once, and calls the network's layers in order.

    A subclass says in `network` what it is. The layer takes one tensor or a list of tensors,
    [batch, height, width, channels]; all but the batch must be known, and stays what it was at the
    first call. Its variables are named as those of the network, with the layer's name in front.
    """

    def network(self, b: Builder, inputs: list[Node]) -> Node | Sequence[Node]:
        """Records the network.

        Returns:
          One node, and the layer gives a tensor; or several, and it gives a list.

        Raises:
          ValueError: the inputs do not fit.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what its network is")

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        tensors = tf.nest.flatten(inputs)
        # TensorFlow brings Keras 3 along, which is easily taken for tf_keras.
        if any(type(x).__module__.split(".")[0] == "keras" for x in tensors):
            raise LayerError(
                f"{self._title()} takes tensors of tf_keras, not of Keras 3; make the model with "
                '"import tf_keras" in place of "import keras"'
            )
        shapes = self._known([tf.TensorShape(getattr(x, "shape", None)) for x in tensors])
        if self.built:
            known = [node.shape for node in self._graph.inputs]
            if shapes != known:
                raise LayerError(
                    f"{self._title()} was built for {_text(known)}, not for {_text(shapes)}; make "
                    "one layer for each size, with set_weights(other.get_weights())"
                )
        return super().__call__(inputs, *args, **kwargs)

    def build(self, input_shape: Any) -> None:
        self._graph = graph = self._record(input_shape)
        layers = keras_layers(graph.outputs, dtype=self.dtype_policy, trainable=self.trainable)
        # Without a call around it, as where a model is loaded, no scope has been entered.
        inside = f"/{tf.get_current_name_scope()}".endswith(f"/{self.name}")
        with contextlib.nullcontext() if inside else tf.name_scope(self.name):
            for node in reachable(graph.outputs):
                if node.op == "input" or layers[node.name].built:
                    continue
                shapes = [tf.TensorShape((None, *node_in.shape)) for node_in in node.inputs]
                with tf.name_scope(node.name):
                    layers[node.name].build(shapes if len(shapes) > 1 else shapes[0])
        # An attribute: Keras finds variables and losses there.
        self._graph_layers = list(layers.values())
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the network's tensors. Keras hands `training` on to the layers inside."""
        graph = self._graph
        tensors = dict(zip(graph.inputs, tf.nest.flatten(inputs), strict=True))
        layers = {layer.name: layer for layer in self._graph_layers}
        return graph.shaped(replay(graph.outputs, tensors, layers))

    def compute_output_shape(self, input_shape: Any) -> Any:
        graph = self._record(input_shape)
        batch = _shapes(input_shape)[0][0]
        return graph.shaped([tf.TensorShape((batch, *node.shape)) for node in graph.outputs])

    def _record(self, input_shape: Any) -> _Graph:
        b = Builder()
        shapes = self._known(_shapes(input_shape))
        inputs = [b.input(shape, f"input_{place}") for place, shape in enumerate(shapes)]
        try:
            recorded = self.network(b, inputs)
        # A network function says what does not fit; only the layer knows its own name.
        except ValueError as error:
            raise LayerError(f"{self._title()}: {error}") from None
        if isinstance(recorded, Node):
            return _Graph(inputs, [recorded], is_list=False)
        return _Graph(inputs, list(recorded), is_list=True)

    def _known(self, shapes: Sequence[tf.TensorShape]) -> list[tuple[int, ...]]:
        """Returns (height, width, channels) of all inputs."""
        for place, shape in enumerate(shapes):
            if shape.rank != 4 or None in shape[1:]:
                met = "of unknown shape" if shape.rank is None else str(shape.as_list())
                raise LayerError(
                    f"{self._title()}: input {place} is {met}; [batch, height, width, channels] is "
                    "needed, all but the batch known, as of tf_keras.Input((320, 320, 3))"
                )
        return [tuple(shape[1:]) for shape in shapes]

    def _title(self) -> str:
        return f'{type(self).__name__} "{self.name}"'


def _shapes(input_shape: Any) -> list[tf.TensorShape]:
    """Returns the shapes of all inputs, in the order of `tf.nest.flatten`.

    A loaded model has lists of numbers for them.
    """
    if isinstance(input_shape, dict):
        input_shape = [input_shape[key] for key in sorted(input_shape)]
    if isinstance(input_shape, tf.TensorShape) or isinstance(input_shape[-1], int):
        return [tf.TensorShape(input_shape)]
    return [shape for inside in input_shape for shape in _shapes(inside)]


def _text(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in shapes)

"""The layers of a quantised graph that are furthest from float32."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

# Sums, for each tensor, of the squared error, of float32's values, of their squares; and the number
# of values.
_Sums = dict[str, np.ndarray]


def worst_layers(
    float_graph: bytes, quantised_graph: bytes, images: np.ndarray, count: int = 5
) -> list[dict[str, str | float]]:
    """Returns the outputs of layers with the largest errors, worst first.

    Errors of earlier layers are in those of later ones.

    Args:
      float_graph: of the same model in float32, and with the same input.
      images: [images, height, width, 3], as both graphs take them.

    Returns:
      tensor: its name in both graphs, that of the layer; relative_error: the root mean square of
      the error over the standard deviation of float32's values.
    """
    sums: _Sums = defaultdict(lambda: np.zeros(4))
    exact, quantised = _Layers(float_graph), _Layers(quantised_graph)
    for image in images:
        quantised_values = dict(quantised.run(image))
        for name, values in exact.run(image):
            # Fused and inserted operations have tensors that only one of the graphs has.
            if name in quantised_values and values.shape == quantised_values[name].shape:
                error = quantised_values[name] - values
                sums[name] += [
                    np.sum(error**2), np.sum(values), np.sum(values**2), values.size,
                ]  # fmt: skip
    errors = {name: _relative(*total) for name, total in sums.items()}
    worst = sorted(errors, key=lambda name: -errors[name])[:count]
    return [{"tensor": name, "relative_error": round(errors[name], 4)} for name in worst]


def _relative(squared_error: float, total: float, squares: float, size: float) -> float:
    variance = squares / size - (total / size) ** 2
    # Values that are the same everywhere have no scale of their own.
    return float(np.sqrt(squared_error / size / variance)) if variance > 0 else 0.0


class _Layers:
    """A graph that gives the outputs of all its operations."""

    def __init__(self, graph: bytes) -> None:
        self._interpreter = Interpreter(
            model_content=graph,
            # A delegate keeps what is between its operations to itself.
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        self._interpreter.allocate_tensors()
        (self._input,) = self._interpreter.get_input_details()
        details = {x["index"]: x for x in self._interpreter.get_tensor_details()}
        operations = self._interpreter._get_ops_details()
        self._outputs = [details[index] for op in operations for index in op["outputs"]]

    def run(self, image: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Yields the name and the values of every tensor that is computed from an image."""
        self._interpreter.set_tensor(self._input["index"], image[None])
        self._interpreter.invoke()
        for detail in self._outputs:
            values = self._interpreter.get_tensor(detail["index"]).astype(np.float64)
            scale, zero_point = detail["quantization"]
            # Where an operation on several layers has one name for all, the first is the layer's.
            name = detail["name"].partition(";")[0]
            yield name, (values - zero_point) * scale if scale else values

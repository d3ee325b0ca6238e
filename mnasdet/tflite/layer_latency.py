"""Measures single layers on this machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from mnasdet.networks.builder import Node
from mnasdet.networks.cost import CostSheet
from mnasdet.tflite import latency_table
from mnasdet.tflite.benchmark import Worker, provenance
from mnasdet.tflite.convert import quiet
from mnasdet.tflite.latency_table import LatencyTable, Layer

_INPUT = Node("input", "", (), (1, 1, 1))
_NOTHING = Layer(Node("activation", "", (_INPUT,), (1, 1, 1), {"function": "relu6"}))

# A layer is run up to so many times and for so long.
_NUM_RUNS = 100
_MAX_SECONDS = 0.02
_WARMUP_RUNS = 3

# Near the fastest run: a median also counts what other processes take away meanwhile.
_PERCENTILE = 10
_TIMEOUT_SECONDS = 60.0

# How often a table in the making is written.
_SAVE_SECONDS = 5.0


def measure(layers: Iterable[Layer], num_threads: int = 1) -> Iterator[tuple[str, float]]:
    """Each layer's key and its milliseconds above a graph that does nothing.

    Every layer becomes a graph of its own; one process runs them all, one after the other, and
    nothing is converted meanwhile.
    """
    with tempfile.TemporaryDirectory() as folder, Worker() as worker:
        path = Path(folder) / "layer.tflite"

        def milliseconds(layer: Layer) -> float:
            path.write_bytes(graph(layer))
            runs = worker.run(
                path,
                num_threads=num_threads,
                num_runs=_NUM_RUNS,
                warmup_runs=_WARMUP_RUNS,
                max_seconds=_MAX_SECONDS,
                timeout_seconds=_TIMEOUT_SECONDS,
            )["runs_ms"]
            return float(np.percentile(runs, _PERCENTILE))

        nothing_ms = milliseconds(_NOTHING)
        for layer in layers:
            yield layer.key, max(0.0, milliseconds(layer) - nothing_ms)


def ensure(
    path: str | os.PathLike,
    sheets: Iterable[CostSheet],
    num_threads: int = 1,
    progress: bool = False,
) -> LatencyTable:
    """The table of this machine in `path` with all layers of `sheets`; measures and writes what it
    lacks. What an interrupted run has measured is not measured again, and of several processes
    that lack something one measures while the others wait.

    Args:
      progress: show a bar on standard error.

    Raises:
      ConfigError: `path` is no table, or one of another device.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path):
        here = provenance(num_threads)
        table = LatencyTable.load(path) if path.exists() else LatencyTable(here, {}, path=str(path))
        table.check_device(num_threads)
        wanted = latency_table.missing(table, sheets)
        if not wanted:
            return table
        saved = time.monotonic()
        try:
            with tqdm(total=len(wanted), unit="layer", disable=not progress) as bar:
                for key, latency_ms in measure(wanted.values(), num_threads):
                    # As it is written: a search that is resumed reads what it measured.
                    table.entries[key] = round(latency_ms, latency_table.DIGITS)
                    bar.update()
                    if time.monotonic() - saved > _SAVE_SECONDS:
                        table.save(path)
                        saved = time.monotonic()
        finally:
            if table.entries:
                table.save(path)
    return table


def set_scale(path: str | os.PathLike, scale: float, constant_ms: float) -> LatencyTable:
    """Writes scale and constant into the table in `path`."""
    path = Path(path)
    with _lock(path):
        table = LatencyTable.load(path)
        table.scale, table.constant_ms = scale, constant_ms
        table.save(path)
    return table


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """One process at a time changes the table in `path`; the system releases the lock where that
    process dies."""
    with open(path.with_name(f".{path.name}.lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def graph(layer: Layer) -> bytes:
    """The layer alone as a TFLite graph, weights random."""
    node = layer.node

    @tf.function(
        input_signature=[tf.TensorSpec((1, *x.shape), tf.float32) for x in node.inputs],
        autograph=False,
    )
    def function(*tensors: tf.Tensor) -> tf.Tensor:
        return _ACTIVATIONS[layer.activation](_OPS[node.op](node, *tensors))

    # Without signature: half the time of `convert`.
    converter = tf.lite.TFLiteConverter([function.get_concrete_function()])
    with quiet():
        return converter.convert()


def _weights(*shape: int) -> tf.Tensor:
    return tf.constant(np.random.default_rng(0).uniform(-0.1, 0.1, shape), tf.float32)


def _conv2d(node: Node, x: tf.Tensor) -> tf.Tensor:
    size, strides = node.attrs["kernel_size"], node.attrs["strides"]
    kernel = _weights(size, size, node.inputs[0].channels, node.channels)
    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, strides, "SAME"), _weights(node.channels))


def _depthwise_conv2d(node: Node, x: tf.Tensor) -> tf.Tensor:
    size, strides = node.attrs["kernel_size"], node.attrs["strides"]
    kernel = _weights(size, size, node.channels, 1)
    y = tf.nn.depthwise_conv2d(x, kernel, (1, strides, strides, 1), "SAME")
    return tf.nn.bias_add(y, _weights(node.channels))


_ACTIVATIONS: dict[str, Callable] = {
    "linear": tf.identity,
    "relu": tf.nn.relu,
    "relu6": tf.nn.relu6,
    "sigmoid": tf.sigmoid,
}
_OPS: dict[str, Callable[..., tf.Tensor]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "batch_norm": lambda node, x: x * _weights(node.channels) + _weights(node.channels),
    "activation": lambda node, x: _ACTIVATIONS[node.attrs["function"]](x),
    "max_pool": lambda node, x: tf.nn.max_pool2d(
        x, node.attrs["size"], node.attrs["strides"], "SAME"
    ),
    "global_max_pool": lambda node, x: tf.reduce_max(x, axis=(1, 2), keepdims=True),
    "upsample": lambda node, x: tf.raw_ops.ResizeNearestNeighbor(images=x, size=node.shape[:2]),
    "add": lambda node, x, y: x + y,
    "multiply": lambda node, x, y: x * y,
    "reshape": lambda node, x: tf.reshape(x, (1, *node.shape)),
    "concat": lambda node, *tensors: tf.concat(tensors, axis=1),
}

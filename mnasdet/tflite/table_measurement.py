"""Measures layers and whole networks on a device, and puts them into a table.

In rounds: every graph three times, once a round and quickly, in random order, then again those
whose figures do not agree. A machine's restless seconds then hit no graph in all its rounds, and
its slow minutes hit layers and networks alike.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from mnasdet.networks.builder import Node, canonical_key
from mnasdet.networks.cost import CostSheet
from mnasdet.tflite.device import Device
from mnasdet.tflite.latency_table import DIGITS, LatencyTable
from mnasdet.tflite.layers import layers
from mnasdet.tflite.network_graph import NOTHING, layer_graph, network_graph

_MIN_ROUNDS, _MAX_ROUNDS = 3, 12
# A graph's two fastest rounds agree if they differ by this share, or by so many milliseconds.
_AGREEMENT = 0.02
_AGREEMENT_MS = 0.002

# What writes a graph, by the key of what it times.
_Graphs = Mapping[str, Callable[[], bytes]]

# Graphs that are written, then measured.
_BATCH = 20
# How often a table in the making is written.
_SAVE_SECONDS = 5.0


def ensure(
    path: str | os.PathLike,
    sheets: Iterable[CostSheet],
    device: Device,
    networks: Iterable[Sequence[Node]] = (),
    progress: bool = False,
) -> LatencyTable:
    """The device's table in `path` with all layers of `sheets` and with the networks of these
    outputs; measures and writes what it lacks, or has no certain figure of. What an interrupted
    run has measured counts.

    Args:
      progress: show a bar on standard error.

    Raises:
      ConfigError: `path` is no table, or one of another device.
    """
    table = load_or_new(path, device)
    layer_graphs: _Graphs = {
        layer.key: partial(layer_graph, layer) for sheet in sheets for layer in layers(sheet)
    }
    network_graphs: _Graphs = {
        canonical_key(outputs): partial(network_graph, outputs) for outputs in networks
    }
    graphs = {**layer_graphs, **network_graphs}

    def unsettled() -> list[str]:
        known = table.entries.keys() | table.networks.keys()
        return [key for key in graphs if key in table.noisy or key not in known]

    if not (keys := unsettled()):
        return table
    saved = time.monotonic()
    nothing_ms = float("inf")
    try:
        with tqdm(unit="graph", total=0, disable=not progress) as bar:
            for number in range(_MAX_ROUNDS):
                if number >= _MIN_ROUNDS:
                    keys = unsettled()
                random.Random(number).shuffle(keys)
                bar.total = bar.n + len(keys) * max(1, _MIN_ROUNDS - number)
                for start in range(0, len(keys), _BATCH):
                    batch = {key: graphs[key] for key in keys[start : start + _BATCH]}
                    nothing, *latencies_ms = _measure(batch, device)
                    nothing_ms = min(nothing_ms, nothing)
                    for key, latency_ms in zip(batch, latencies_ms, strict=True):
                        if key in layer_graphs:
                            _record(table, table.entries, key, max(0.0, latency_ms - nothing_ms))
                        else:
                            _record(table, table.networks, key, latency_ms)
                    bar.update(len(batch))
                    if time.monotonic() - saved > _SAVE_SECONDS:
                        table.save(path)
                        saved = time.monotonic()
    finally:
        if table.entries:
            table.save(path)
    return table


def _measure(graphs: _Graphs, device: Device) -> list[float]:
    """Milliseconds of a graph that does nothing, then of these."""
    writers: list[Callable[[], bytes]] = [partial(layer_graph, NOTHING), *graphs.values()]
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.tflite" for number in range(len(writers))]
        for path, write in zip(paths, writers, strict=True):
            path.write_bytes(write())
        return device.quick_ms(paths)


def _record(table: LatencyTable, figures: dict[str, float], key: str, latency_ms: float) -> None:
    """Keeps the fastest round, as it is written: a search that is resumed reads what it measured;
    and whether another one confirms it."""
    known = figures.get(key, float("inf"))
    figures[key] = fastest = round(min(known, latency_ms), DIGITS)
    tolerance = max(_AGREEMENT * fastest, _AGREEMENT_MS)
    if latency_ms < known - tolerance:
        table.noisy.add(key)
    elif latency_ms <= known + tolerance:
        table.noisy.discard(key)


def load_or_new(path: str | os.PathLike, device: Device) -> LatencyTable:
    """The device's table; raises ConfigError where that in `path` is none of this device."""
    here = device.provenance()
    exists = Path(path).exists()
    table = LatencyTable.load(path) if exists else LatencyTable(here, {}, path=os.fspath(path))
    table.check_device(here)
    return table

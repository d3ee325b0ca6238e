"""Measures layers and whole networks on a device, and puts them into a table.

In rounds: in each of five every graph gets its turns, quick ones and in random order, and in up to
five more those whose two fastest turns do not agree. What counts is the fastest one: what disturbs
a turn makes it slower, and a long network's more likely than a layer's.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from mnasdet.networks.cost import CostSheet
from mnasdet.networks.graph import Network
from mnasdet.tflite.devices.device import Device
from mnasdet.tflite.latency.latency_table import DIGITS, LatencyTable
from mnasdet.tflite.latency.layers import layers
from mnasdet.tflite.latency.network_graph import NOTHING, layer_graph, network_graph

_MIN_ROUNDS, _MAX_ROUNDS = 5, 10
# A network gets more turns in a round than a layer: it takes a few per cent more or less each time
# that it is loaded, which evens out over the many layers of a network, but not over one network.
_LAYER_TURNS, _NETWORK_TURNS = 1, 2
# The two fastest turns agree if the second is within this share of the first, or so many
# milliseconds.
_MAX_SPREAD = 0.05
_MAX_SPREAD_MS = 0.002

# Graphs that are written, then measured.
_BATCH = 20
# How often a table in the making is written.
_SAVE_SECONDS = 5.0


@dataclass
class _Graph:
    """A layer or a whole graph to be measured.

    Attributes:
      write: gives the TFLite file.
      figures: what the table has of its kind.
      turns_ms: what counts of the turns so far; a figure that the table had is one.
    """

    key: str
    write: Callable[[], bytes]
    figures: dict[str, float]
    is_network: bool
    turns_ms: list[float] = field(default_factory=list)

    @property
    def turns(self) -> int:
        """Returns the turns in each round."""
        return _NETWORK_TURNS if self.is_network else _LAYER_TURNS

    def add(self, latency_ms: float, nothing_ms: float, noisy: set[str]) -> None:
        """Puts the fastest turn into the table, as it is written.

        A search that is resumed reads what it measured. `noisy` gets the key, or loses it.


        Args:
          nothing_ms: of a graph that does nothing, which is no layer's time.
        """
        if not self.is_network:
            latency_ms = max(0.0, latency_ms - nothing_ms)
        self.turns_ms.append(latency_ms)
        fastest, *others = sorted(self.turns_ms)
        self.figures[self.key] = round(fastest, DIGITS)
        limit = fastest + max(_MAX_SPREAD * fastest, _MAX_SPREAD_MS)
        if len(self.turns_ms) >= _MIN_ROUNDS * self.turns and others[0] <= limit:
            noisy.discard(self.key)
        else:
            noisy.add(self.key)


def ensure(
    path: str | os.PathLike,
    sheets: Iterable[CostSheet],
    device: Device,
    networks: Iterable[Network] = (),
    progress: bool = False,
) -> LatencyTable:
    """Returns the device's table in `path` with all layers of `sheets` and all graphs of
    `networks`.

    Measures and writes what it lacks, or has no certain figure of. What an interrupted run has
    measured counts.

    Args:
      progress: show a bar on standard error.

    Raises:
      ConfigError: `path` is no table, or one of another device.
    """
    table = load_or_new(path, device)
    graphs = _uncertain(table, sheets, networks)
    if not graphs:
        return table
    nothing_ms = min(_measure([partial(layer_graph, NOTHING)] * _BATCH, device))
    saved = time.monotonic()
    try:
        with tqdm(desc="measuring", unit="graph", total=0, disable=not progress) as bar:
            for number in range(_MAX_ROUNDS):
                if number >= _MIN_ROUNDS:
                    graphs = [graph for graph in graphs if graph.key in table.noisy]
                turns = [graph for graph in graphs for _ in range(graph.turns)]
                # A round's order is random, so that a slow spell of the machine does not hit one
                # kind of layer; from its number, so that a run can be repeated.
                random.Random(number).shuffle(turns)
                bar.total = bar.n + len(turns) * max(1, _MIN_ROUNDS - number)
                for start in range(0, len(turns), _BATCH):
                    batch = turns[start : start + _BATCH]
                    latencies_ms = _measure([graph.write for graph in batch], device)
                    for graph, latency_ms in zip(batch, latencies_ms, strict=True):
                        graph.add(latency_ms, nothing_ms, table.noisy)
                    bar.update(len(batch))
                    if time.monotonic() - saved > _SAVE_SECONDS:
                        table.save(path)
                        saved = time.monotonic()
    # A table is hours of work on a phone: it is kept whatever ends the run.
    finally:
        if table.entries:
            table.save(path)
    return table


def _uncertain(
    table: LatencyTable, sheets: Iterable[CostSheet], networks: Iterable[Network]
) -> list[_Graph]:
    """Returns the graphs that the table lacks, or has no certain figure of."""
    by_key = {layer.key: layer for sheet in sheets for layer in layers(sheet)}
    by_graph_key = {graph.key(): graph for network in networks for graph in network}
    graphs = [
        _Graph(key, partial(layer_graph, layer), table.entries, is_network=False)
        for key, layer in by_key.items()
    ] + [
        _Graph(key, partial(network_graph, graph.nodes), table.networks, is_network=True)
        for key, graph in by_graph_key.items()
    ]
    for graph in graphs:
        # A figure that the table has counts as a turn, so that a resumed run asks for fewer.
        if graph.key in graph.figures:
            graph.turns_ms.append(graph.figures[graph.key])
    return [graph for graph in graphs if not graph.turns_ms or graph.key in table.noisy]


def _measure(writers: Sequence[Callable[[], bytes]], device: Device) -> list[float]:
    """Returns the milliseconds of the graphs that are written."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.tflite" for number in range(len(writers))]
        for path, write in zip(paths, writers, strict=True):
            path.write_bytes(write())
        return device.quick_ms(paths)


def load_or_new(path: str | os.PathLike, device: Device) -> LatencyTable:
    """Returns the device's table; ConfigError where the one in `path` is of another device."""
    here = device.provenance()
    exists = Path(path).exists()
    table = LatencyTable.load(path) if exists else LatencyTable(here, {}, path=os.fspath(path))
    table.check_device(here)
    return table

"""Measures single layers on a device, and puts them into a table."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from mnasdet.networks.cost import CostSheet
from mnasdet.tflite import latency_table
from mnasdet.tflite.device import Device
from mnasdet.tflite.latency_table import LatencyTable
from mnasdet.tflite.layers import Layer
from mnasdet.tflite.network_graph import NOTHING, layer_graph

# Layers whose graphs are written, then measured.
_BATCH = 20

# How often a table in the making is written.
_SAVE_SECONDS = 5.0


def measure(layers: Iterable[Layer], device: Device) -> Iterator[tuple[str, float]]:
    """Each layer's key and its milliseconds above a graph that does nothing.

    Every layer becomes a graph of its own; the device runs them one after the other.
    """
    remaining = iter(layers)
    nothing_ms: float | None = None
    with tempfile.TemporaryDirectory() as folder:
        while batch := list(islice(remaining, _BATCH)):
            graphs = _write(batch if nothing_ms is not None else [NOTHING, *batch], Path(folder))
            latencies_ms = device.small_graphs_ms(graphs)
            if nothing_ms is None:
                nothing_ms, *latencies_ms = latencies_ms
            for layer, latency_ms in zip(batch, latencies_ms, strict=True):
                yield layer.key, max(0.0, latency_ms - nothing_ms)


def _write(batch: Sequence[Layer], folder: Path) -> list[Path]:
    paths = [folder / f"{number}.tflite" for number in range(len(batch))]
    for layer, path in zip(batch, paths, strict=True):
        path.write_bytes(layer_graph(layer))
    return paths


def ensure(
    path: str | os.PathLike,
    sheets: Iterable[CostSheet],
    device: Device,
    progress: bool = False,
) -> LatencyTable:
    """The device's table in `path` with all layers of `sheets`; measures and writes what it lacks.
    What an interrupted run has measured is not measured again.

    Args:
      progress: show a bar on standard error.

    Raises:
      ConfigError: `path` is no table, or one of another device.
    """
    table = load_or_new(path, device)
    wanted = latency_table.missing(table, sheets)
    if not wanted:
        return table
    saved = time.monotonic()
    try:
        with tqdm(total=len(wanted), unit="layer", disable=not progress) as bar:
            for key, latency_ms in measure(wanted.values(), device):
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


def load_or_new(path: str | os.PathLike, device: Device) -> LatencyTable:
    """The device's table; raises ConfigError where that in `path` is none of this device."""
    here = device.provenance()
    exists = Path(path).exists()
    table = LatencyTable.load(path) if exists else LatencyTable(here, {}, path=os.fspath(path))
    table.check_device(here)
    return table

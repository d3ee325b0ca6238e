"""Latency tables with all the layers of a search space, and how well they predict whole networks.

Random networks of the space give a table its scale and constants, and others, held out, its
fidelity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from mnasdet import config, models
from mnasdet.networks.cost import CostSheet, cost_sheet
from mnasdet.networks.graph import Network
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.search.results import config_digest
from mnasdet.search_spaces import factory
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.devices.factory import opened
from mnasdet.tflite.latency import calibration, latency_table, table_measurement
from mnasdet.tflite.latency.latency_table import LatencyTable
from mnasdet.tflite.latency.layers import layers

# The space has been seen when this number of random networks in a row bring no new layer.
_FRUITLESS_SAMPLES = 300

# Random networks from a seed, without end.
Draw = Callable[[int], Iterator[Network]]


@dataclass(frozen=True)
class Subject:
    """The networks that a table is about.

    Attributes:
      given: networks whose layers it has.
      draw: draws from the search space whose layers it has as well; None without a space.
      config_sha256: the digest of the config that they are of, if there is one.
    """

    given: Sequence[Network]
    draw: Draw | None = None
    config_sha256: str = ""


def searched(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> Subject:
    """Returns a config's own network and those of its search space, each at its own image size."""
    base = config.resolve(pipeline)
    given, digest = [models.network(base)], config_digest(pipeline)
    if not pipeline.search_config.HasField("search_space"):
        return Subject(given, config_sha256=digest)
    space = factory.from_config(pipeline.search_config.search_space, base.architecture)

    def draw(seed: int) -> Iterator[Network]:
        rng = np.random.default_rng(seed)
        while True:
            yield models.network(config.resolve(pipeline, space.decode(space.sample(rng))))

    return Subject(given, draw, digest)


def configured(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    architectures: Sequence[architecture_pb2.Architecture],
) -> Subject:
    """Returns architectures as a config builds them."""
    networks = [models.network(config.resolve(pipeline, one)) for one in architectures]
    return Subject(networks, config_sha256=config_digest(pipeline))


def build(
    subject: Subject,
    spec: DeviceSpec,
    path: str | Path | None = None,
    *,
    num_fit: int = 50,
    num_test: int = 50,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures what a table lacks, fits it to whole networks, and returns what became of it.

    What the table has stays, and so do the whole networks: a run that was interrupted goes on where
    it was.

    Args:
      path: of the table; None: the device's own in the cache folder.
      num_fit: networks that give the scale.
      num_test: networks that are held out for the fidelity.
      seed: of the random networks.
    """
    sheets = _covering_sheets(subject, seed)
    fitted, held_out = _whole_networks(subject, num_fit, num_test, seed)
    networks = [*fitted, *held_out]
    sheets += [cost_sheet(network) for network in networks]
    with opened(spec) as device:
        path = path or latency_table.default_path(device.provenance())
        table_measurement.ensure(path, sheets, device, networks, progress=True)
    table = LatencyTable.load(path)  # The findings are those of the written table.
    if subject.config_sha256:
        _sign(table, subject.config_sha256)
    return _calibrate(table, fitted, held_out)


def _covering_sheets(subject: Subject, seed: int) -> list[CostSheet]:
    """Returns cost sheets that have every layer of the given networks and of the space."""
    sheets = [cost_sheet(network) for network in subject.given]
    known = {layer.key for sheet in sheets for layer in layers(sheet)}
    fruitless = 0
    for network in subject.draw(seed) if subject.draw else []:
        sheet = cost_sheet(network)
        keys = {layer.key for layer in layers(sheet)}
        fruitless = fruitless + 1 if keys <= known else 0
        if fruitless == _FRUITLESS_SAMPLES:
            break
        # Only sheets that bring a layer: the others would be measured for nothing.
        if not fruitless:
            sheets.append(sheet)
            known |= keys
    logging.info("%d layers in all", len(known))
    return sheets


def _whole_networks(
    subject: Subject, num_fit: int, num_test: int, seed: int
) -> tuple[list[Network], list[Network]]:
    """Returns different networks to fit to, and others to test on."""
    # Architectures that were named have to serve for both.
    if subject.draw is None:
        return list(subject.given[:num_fit]), list(subject.given[num_fit : num_fit + num_test])
    found: dict[str, Network] = {}
    # A seed of its own: other networks than those that the layers were found in.
    for network in islice(subject.draw(seed + 1), 10 * (num_fit + num_test)):
        if len(found) == num_fit + num_test:
            break
        # Two token lists may stand for one network, which would be in the fit and the test.
        found.setdefault(network.key(), network)
    networks = list(found.values())
    return networks[:num_fit], networks[num_fit:]


def _sign(table: LatencyTable, config_sha256: str) -> None:
    """Writes into the table which config it was last extended for."""
    if table.provenance.get("config_sha256") != config_sha256:
        table.provenance["config_sha256"] = config_sha256
        table.save(table.path)


def _calibrate(
    table: LatencyTable, fitted: Sequence[Network], held_out: Sequence[Network]
) -> dict[str, Any]:
    """Fits the table to some whole networks and compares it with others."""
    if fitted:
        # One graph at a time: every run of one has the constant.
        graphs = [graph for network in fitted for graph in network]
        calibration.calibrate(
            table,
            [cost_sheet(graph.nodes) for graph in graphs],
            [table.networks[graph.key()] for graph in graphs],
        )
    rows = [
        {
            "predicted_ms": table.latency_ms(cost_sheet(network)),
            "latency_ms": table.measured_ms(network),
            "noisy": any(graph.key() in table.noisy for graph in network),
        }
        for network in held_out
    ]
    compares = len(rows) > 1
    return {
        "table": table.path,
        "num_layers": len(table.entries),
        "provenance": table.provenance,
        "scale": table.scale,
        "small_scale": table.small_scale,
        "ms_per_megabyte": table.ms_per_megabyte,
        "constant_ms": table.constant_ms,
        "num_fit": len(fitted),
        "num_noisy": len(table.noisy),
        "fidelity": calibration.fidelity(
            [row["predicted_ms"] for row in rows], [row["latency_ms"] for row in rows]
        )
        if compares
        else None,
        "peers": _peers(table, fitted, held_out) if fitted and compares else {},
        "networks": rows,
    }


def _peers(
    table: LatencyTable, fitted: Sequence[Network], held_out: Sequence[Network]
) -> dict[str, dict[str, float]]:
    """Returns the fidelity of what tells nothing of the device, scaled as the table is."""
    networks = [*fitted, *held_out]
    measured_ms = [table.measured_ms(network) for network in networks]
    totals = [cost_sheet(network).total for network in networks]
    peers = {}
    for name in ("multiply_adds", "params"):
        counts = [[getattr(total, name)] for total in totals]
        scale, constant_ms = calibration.fit(counts[: len(fitted)], measured_ms[: len(fitted)])
        predicted_ms = [scale * count + constant_ms for (count,) in counts[len(fitted) :]]
        peers[name] = calibration.fidelity(predicted_ms, measured_ms[len(fitted) :])
    return peers

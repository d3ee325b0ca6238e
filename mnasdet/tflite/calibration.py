"""How well a latency table predicts whole networks."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from mnasdet.errors import UserError
from mnasdet.networks.builder import Node, canonical_key
from mnasdet.networks.cost import CostSheet
from mnasdet.tflite.device import Device
from mnasdet.tflite.latency_table import DIGITS, LatencyTable, Measured
from mnasdet.tflite.network_graph import network_graph
from mnasdet.tflite.repeats import typical_ms


def network_latency(outputs: Sequence[Node], device: Device) -> Measured:
    """A whole network as a float32 TFLite file on the device. The weights are random, for they
    make no difference."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.tflite"
        path.write_bytes(network_graph(outputs))
        result = device.benchmark(path)
    # Near the fastest run, as single layers, where the device tells; rounded as a table has it.
    latency_ms = typical_ms(result) if result["p10_ms"] is None else result["p10_ms"]
    return Measured(round(latency_ms, DIGITS), round(result["iqr_ms"], DIGITS), result["noisy"])


def ensure_networks(
    table: LatencyTable,
    networks: Sequence[Sequence[Node]],
    device: Device,
    progress: bool = False,
) -> list[Measured]:
    """The networks' own latencies, in order. What the table does not have is measured and written
    into it at once."""
    keys = [canonical_key(outputs) for outputs in networks]
    new = {k: o for k, o in zip(keys, networks, strict=True) if k not in table.networks}
    for key, outputs in tqdm(new.items(), unit="network", disable=not (progress and new)):
        table.networks[key] = network_latency(outputs, device)
        table.save(table.path)
    return [table.networks[key] for key in keys]


def calibrate(
    table: LatencyTable, sheets: Sequence[CostSheet], measured: Sequence[Measured]
) -> None:
    """Gives the table the scale and the constant that fit these networks, and writes it.

    Raises:
      UserError: they fit none.
    """
    sums = [table.layer_sum_ms(sheet) for sheet in sheets]
    scale, constant_ms = fit(sums, [network.latency_ms for network in measured])
    if scale <= 0:
        raise UserError(
            f"{table.path}: the networks' latencies do not grow with those of their layers; "
            "measure again while nothing else runs, with more --num_fit"
        )
    table.scale, table.constant_ms = scale, constant_ms
    table.save(table.path)


def fit(layer_sums_ms: Sequence[float], measured_ms: Sequence[float]) -> tuple[float, float]:
    """Scale and constant, in ms, of the least relative squared error. A table's errors grow with
    the network: absolute ones would leave the small networks to the large."""
    sums, measured = np.asarray(layer_sums_ms, float), np.asarray(measured_ms, float)
    design = np.stack([sums, np.ones_like(sums)], axis=1) / measured[:, None]
    scale, constant_ms = np.linalg.lstsq(design, np.ones_like(sums), rcond=None)[0]
    return float(scale), float(constant_ms)


def fidelity(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> dict[str, float]:
    """Agreement over networks: r2, spearman, shares within 5 and 10 %, mean absolute error in per
    cent, and the range of what was measured."""
    from scipy.stats import spearmanr

    predicted, measured = np.asarray(predicted_ms, float), np.asarray(measured_ms, float)
    error = np.abs(predicted / measured - 1)
    residual = np.sum((predicted - measured) ** 2)
    return {
        "num_networks": len(measured),
        "r2": float(1 - residual / np.sum((measured - measured.mean()) ** 2)),
        "spearman": float(spearmanr(predicted, measured).statistic),
        "within_5_percent": float(np.mean(error <= 0.05)),
        "within_10_percent": float(np.mean(error <= 0.10)),
        "mean_absolute_percentage_error": float(100 * error.mean()),
        "min_ms": float(measured.min()),
        "max_ms": float(measured.max()),
    }

"""How well a latency table predicts whole networks."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mnasdet.networks.builder import Node


def network_latency_ms(outputs: Sequence[Node], num_threads: int = 1, num_runs: int = 30) -> float:
    """A whole network, measured as the table's layers are: near its fastest run."""
    from mnasdet.networks.keras_builder import keras_model
    from mnasdet.tflite.benchmark import benchmark
    from mnasdet.tflite.convert import convert

    model = keras_model({f"output_{i}": node for i, node in enumerate(outputs)})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.tflite"
        path.write_bytes(convert(model))
        return benchmark(path, num_threads=num_threads, num_runs=num_runs)["p10_ms"]


def fit(layer_sums_ms: Sequence[float], measured_ms: Sequence[float]) -> tuple[float, float]:
    """Scale and constant, in ms, of the least relative squared error. A table's errors grow with
    the network: absolute ones would leave the small networks to the large."""
    sums, measured = np.asarray(layer_sums_ms, float), np.asarray(measured_ms, float)
    design = np.stack([sums, np.ones_like(sums)], axis=1) / measured[:, None]
    scale, constant_ms = np.linalg.lstsq(design, np.ones_like(sums), rcond=None)[0]
    return float(scale), float(constant_ms)


def fidelity(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> dict[str, float]:
    """Agreement over networks: r2, spearman, shares within 5 and 10 %, mean relative error."""
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
        "mean_absolute_relative_error": float(error.mean()),
    }

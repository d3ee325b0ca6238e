"""How well a latency table predicts whole networks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mnasdet.errors import UserError
from mnasdet.networks.cost import CostSheet
from mnasdet.tflite.latency.latency_table import LatencyTable

# The standard deviation from 1 that is expected of a table's scale: a network takes what its layers
# take alone, but for what they find in the cache.
_SCALE_SPREAD = 0.1
# The share by which a restless machine changes latencies. Larger errors are the table's.
_MAX_NOISE = 0.05


def calibrate(
    table: LatencyTable, sheets: Sequence[CostSheet], measured_ms: Sequence[float]
) -> None:
    """Gives the table the numbers that fit networks' own latencies, and writes it.

    Raises:
      UserError: they fit none.
    """
    scale, small_scale, ms_per_megabyte, constant_ms = fit(
        [table.sums(sheet) for sheet in sheets], measured_ms, lean=True
    )
    if scale <= 0:
        raise UserError(
            f"{table.path}: the networks' latencies do not grow with those of their layers; "
            "measure again while nothing else runs, with more --num_fit"
        )
    table.scale, table.small_scale = scale, small_scale
    table.ms_per_megabyte, table.constant_ms = ms_per_megabyte, constant_ms
    table.save(table.path)


def fit(
    features: Sequence[Sequence[float]], measured_ms: Sequence[float], lean: bool = False
) -> list[float]:
    """Fits a factor for each feature, and a constant, by the least relative squared error.

    A table's errors grow with the network: absolute ones would leave the small networks to the
    large. No factor is negative: no network shall take less than nothing. The constant is last.

    Args:
      features: of every network as many as there are factors.
      lean: the larger the errors, the closer is the first factor kept to 1. Networks that are much
        alike do not tell from which feature their latencies come, and noise would decide.
    """
    # scipy takes long to load, and a search that only reads a table needs none of it.
    from scipy.optimize import nnls

    measured = np.asarray(measured_ms, float)
    design = np.column_stack([np.asarray(features, float), np.ones_like(measured)])
    design, ones = design / measured[:, None], np.ones_like(measured)
    factors, error_norm = nnls(design, ones)
    if lean:
        # One more equation, that the first factor is 1, weighed against those of the networks.
        weight = min(error_norm / len(measured) ** 0.5, _MAX_NOISE) / _SCALE_SPREAD
        equation = weight * np.eye(1, len(factors))
        factors, _ = nnls(np.vstack([design, equation]), np.append(ones, weight))
    return factors.tolist()


def fidelity(predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> dict[str, float]:
    """Returns how far predictions and measurements agree over networks.

    Returns:
      r2; spearman, 0 where all predictions are equal and give no order; the shares within 5 and
      10 %; the mean absolute error in per cent; the range of the measurements.
    """
    from scipy.stats import spearmanr

    predicted, measured = np.asarray(predicted_ms, float), np.asarray(measured_ms, float)
    error = np.abs(predicted / measured - 1)
    residual = np.sum((predicted - measured) ** 2)
    orders = np.ptp(predicted) > 0
    return {
        "num_networks": len(measured),
        "r2": float(1 - residual / np.sum((measured - measured.mean()) ** 2)),
        "spearman": float(spearmanr(predicted, measured).statistic) if orders else 0.0,
        "within_5_percent": float(np.mean(error <= 0.05)),
        "within_10_percent": float(np.mean(error <= 0.10)),
        "mean_absolute_percentage_error": float(100 * error.mean()),
        "min_ms": float(measured.min()),
        "max_ms": float(measured.max()),
    }

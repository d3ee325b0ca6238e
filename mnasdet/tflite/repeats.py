"""How often a graph is timed: until the figures agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnasdet.errors import ConfigError


@dataclass(frozen=True)
class Repeats:
    """How often a graph is loaded and timed.

    Attributes:
      min_repeats, max_repeats: executions; at least two.
      max_spread: (p90 - p10) / median of the executions' own medians up to which they agree. For
        binaries that print no median the means stand in.
    """

    min_repeats: int = 3
    max_repeats: int = 10
    max_spread: float = 0.05

    def __post_init__(self) -> None:
        if not 2 <= self.min_repeats <= self.max_repeats:
            raise ConfigError(
                f"--repeats={self.min_repeats}, --max_repeats={self.max_repeats}: 2 <= repeats <= "
                "max_repeats is needed"
            )


def repeated(execute: Callable[[], dict[str, Any]], repeats: Repeats) -> dict[str, Any]:
    """Executes until the figures agree.

    Args:
      execute: gives what `benchmark_model.read` does.

    Returns:
      The keys of `benchmark_model.read`, every figure as the median over the executions, num_runs
      as their sum; repeats_ms, the median of every execution, and iqr_ms, their interquartile
      range; spread, and noisy: whether it exceeds the bound.
    """
    results: list[dict[str, Any]] = []
    spread = float("inf")
    while len(results) < repeats.min_repeats or (
        spread > repeats.max_spread and len(results) < repeats.max_repeats
    ):
        results.append(execute())
        typical = [typical_ms(result) for result in results]
        p10, p25, median, p75, p90 = np.percentile(typical, [10, 25, 50, 75, 90])
        # A run may take less than the microsecond that the binary counts in.
        spread = float((p90 - p10) / median) if median else 0.0
    last = results[-1]
    figures = {
        name: [result[name] for result in results] for name in last if name.endswith(("_ms", "_mb"))
    }
    return last | {
        **{name: _median(values) for name, values in figures.items()},
        "num_runs": sum(result["num_runs"] for result in results),
        "repeats_ms": typical,
        "iqr_ms": float(p75 - p25),
        "spread": spread,
        "noisy": spread > repeats.max_spread,
    }


def typical_ms(result: dict[str, Any]) -> float:
    """The median; the mean of a binary that prints no median."""
    return result["mean_ms"] if result["median_ms"] is None else result["median_ms"]


def _median(values: list[float | None]) -> float | None:
    return None if None in values else float(np.median(np.asarray(values, float)))

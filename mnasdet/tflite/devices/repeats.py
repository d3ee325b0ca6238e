"""How often a graph is timed: until the figures agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnasdet.errors import ConfigError

# Times `Repeats.max_spread`: above it a user cannot rely on the median. By default that is a tenth,
# the difference between two networks that are worth comparing.
_NOISY = 2.0


@dataclass(frozen=True)
class Repeats:
    """How often a graph is loaded and timed.

    Attributes:
      min_repeats, max_repeats: executions; at least two.
      max_spread: (p90 - p10) / median of the executions' own medians up to which they agree, and no
        more are needed. For binaries that print no median the means stand in.
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
      range; spread, of the executions, and run_spread, of the runs within them; and noisy, whether
      either is above twice `max_spread`.
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
        name: _median([result[name] for result in results])
        for name in last
        if name.endswith(("_ms", "_mb"))
    }
    run_spread = _run_spread(figures)
    return last | {
        **figures,
        "num_runs": sum(result["num_runs"] for result in results),
        "repeats_ms": typical,
        "iqr_ms": float(p75 - p25),
        "spread": spread,
        "run_spread": run_spread,
        "noisy": max(spread, run_spread or 0.0) > _NOISY * repeats.max_spread,
    }


def _run_spread(figures: dict[str, float | None]) -> float | None:
    """Returns the spread of the runs.

    It is (p90 - p10) / median, or (p95 - p5) / median for a binary that prints those; None for one
    that prints no percentiles.

    It tells what the agreement of the executions does not: a machine that runs at half its speed in
    every second run gives the same median in each execution.
    """
    for low, high in (("p10_ms", "p90_ms"), ("p5_ms", "p95_ms")):
        fast, median, slow = figures[low], figures["median_ms"], figures[high]
        if fast is not None and slow is not None and median:
            return (slow - fast) / median
    return None


def typical_ms(result: dict[str, Any]) -> float:
    """Returns the median; the mean of a binary that prints no median."""
    return result["mean_ms"] if result["median_ms"] is None else result["median_ms"]


def _median(values: list[float | None]) -> float | None:
    return None if None in values else float(np.median(np.asarray(values, float)))

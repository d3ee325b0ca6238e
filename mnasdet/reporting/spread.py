"""Whether the children of a search differ by more than chance makes one network differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any

from mnasdet.search.axes import DEFAULT
from mnasdet.search.trials.trial_store import Trial

# A spread of up to this many times the noise is hardly more than noise: of such a spread, noise
# makes 1 / 1.5², nearly half of the variance, and of few trials both are known roughly.
WITHIN = 1.5

_LEAST_TRIALS = 3


def verdict(
    trials: Sequence[Trial],
    *,
    noise: Mapping[str, Any] | None = None,
    standard_error: float | None = None,
    num_images: int = 0,
    metric: str = DEFAULT.accuracy,
) -> str:
    """Compares the spread of the children's accuracy with the noise of one; "" for less than three.

    Args:
      metric: what people call the accuracy.
      noise: what `measure_proxy` found the seed to do, "noise" of proxy_quality.json.
      standard_error: of the best model's accuracy by the choice of the pictures; `num_images`:
        how many these are.
    """
    accuracies = [
        trial.accuracy
        for trial in trials
        if trial.accuracy is not None and trial.duplicate_of is None
    ]
    if len(accuracies) < _LEAST_TRIALS:
        return ""
    spread = stdev(accuracies)
    children = f"The {metric} of {len(accuracies)} different children has a standard deviation of"
    if noise and noise.get("std") is not None:
        return (
            f"{children} {spread:.4f}, that of one network over seeds {noise['std']:.4f} "
            f"(measure_proxy): {_compared(spread, noise['std'])}"
        )
    unknown = "What the seed of a training does is unknown: mnasdet-measure-proxy tells."
    if standard_error:
        return (
            f"{children} {spread:.4f}. One network's {metric}, the retrained one's, has a "
            f"standard error of {standard_error:.4f} by the choice of these {num_images:,} "
            f"pictures alone (bootstrap): {_compared(spread, standard_error)} {unknown}"
        )
    return f"{children} {spread:.4f}. Noise unknown: mnasdet-measure-proxy tells."


def _compared(spread: float, noise: float) -> str:
    if spread <= WITHIN * noise:
        return (
            "the children differ by hardly more than the noise of one, so the order of near ones "
            "is chance."
        )
    return f"the children differ by {spread / max(noise, 1e-9):.1f} times as much."

"""Checks of lists of choices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mnasdet.errors import ConfigError


def check(
    space: str, field: str, values: Sequence[Any], valid: Callable[[Any], bool], allowed: str
) -> None:
    """Raises ConfigError unless there are `values`, all of them different and `valid`."""
    # A choice that is there twice would be sampled twice as often.
    if not values or len(set(values)) < len(values) or not all(map(valid, values)):
        raise ConfigError(
            f"{space} search space: {field} is {list(values)}; use different {allowed}"
        )


def check_positive(space: str, field: str, values: Sequence[float], odd: bool = False) -> None:
    allowed = f"positive {'odd ' * odd}numbers"
    # An even kernel has no middle, and would shift the feature by half a pixel.
    check(space, field, values, lambda v: 0 < v < float("inf") and (not odd or v % 2), allowed)


def check_at_least(space: str, field: str, value: int, minimum: int) -> None:
    if value < minimum:
        raise ConfigError(f"{space} search space: {field} is {value}; use {minimum} or more")


def decimal(value: float) -> float:
    """Returns the number that a config wrote, from a proto's float32 of it: up to 6 digits."""
    return float(f"{value:.6g}")

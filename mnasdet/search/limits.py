"""Hard limits: what is over one is not worth any training."""

from __future__ import annotations

from dataclasses import dataclass

from mnasdet.networks.cost import Cost
from mnasdet.protos import search_pb2


@dataclass(frozen=True)
class Limits:
    """What no trained child exceeds; 0: no limit.

    Attributes:
      max_latency_ms: by the search's latency source, in its `unit`.
      max_file_size: of the float32 TFLite file in bytes. Only the child itself knows it, ahead of
        its training.
    """

    max_params: int = 0
    max_multiply_adds: int = 0
    max_latency_ms: float = 0.0
    max_file_size: int = 0
    unit: str = "ms"

    def excess(self, cost: Cost, latency_ms: float) -> str:
        """The first limit that is exceeded, with both values, or ""."""
        for name, value, limit in (
            ("params", cost.params, self.max_params),
            ("multiply_adds", cost.multiply_adds, self.max_multiply_adds),
        ):
            if 0 < limit < value:
                return f"{value:,} {name} are over limits.max_{name}, {limit:,}"
        if 0 < self.max_latency_ms < latency_ms:
            limit_ms = f"limits.max_latency_ms, {self.max_latency_ms:g}"
            return f"{latency_ms:.4g} {self.unit} are over {limit_ms}"
        return ""


def from_config(config: search_pb2.Limits, unit: str = "ms") -> Limits:
    return Limits(
        max_params=config.max_params,
        max_multiply_adds=config.max_multiply_adds,
        max_latency_ms=config.max_latency_ms,
        max_file_size=config.max_file_size,
        unit=unit,
    )

"""Hard limits: what is over one is not worth any training."""

from __future__ import annotations

from dataclasses import dataclass

from mnasdet.networks.cost import Cost
from mnasdet.protos import search_pb2


@dataclass(frozen=True)
class Limits:
    """The limits that no trained child exceeds; 0: no limit.

    Attributes:
      max_cost: by the search's latency source, in its `unit`.
      max_file_size: of the float32 TFLite file in bytes. Only the child itself knows it, ahead of
        its training.
    """

    max_params: int = 0
    max_multiply_adds: int = 0
    max_cost: float = 0.0
    max_file_size: int = 0
    unit: str = "ms"

    def excess(self, total: Cost, cost: float) -> str:
        """Returns the first limit that is exceeded, with both values, or "".

        Args:
          total: of the cost sheet.
          cost: by the latency source.
        """
        for name, value, most in (
            ("params", total.params, self.max_params),
            ("multiply_adds", total.multiply_adds, self.max_multiply_adds),
        ):
            if 0 < most < value:
                return f"{value:,} {name} are over limits.max_{name}, {most:,}"
        if 0 < self.max_cost < cost:
            limit = f"limits.max_latency_ms, {self.max_cost:g}"
            return f"{cost:.4g} {self.unit} are over {limit}"
        return ""


def from_config(config: search_pb2.Limits, unit: str = "ms") -> Limits:
    return Limits(
        max_params=config.max_params,
        max_multiply_adds=config.max_multiply_adds,
        max_cost=config.max_latency_ms,
        max_file_size=config.max_file_size,
        unit=unit,
    )

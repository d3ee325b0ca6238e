"""Where a network's latency comes from, by a latency table. No TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnasdet.networks.cost import CostSheet
from mnasdet.tflite.latency_table import LatencyTable


@dataclass(frozen=True)
class LayerLatency:
    """One layer of a network.

    Attributes:
      name: of its node, scopes first; part: the outermost scope.
      layer: its key in the table.
      latency_ms: what it adds to the network's latency.
    """

    name: str
    part: str
    layer: str
    latency_ms: float


def by_layer(table: LatencyTable, sheet: CostSheet) -> list[LayerLatency]:
    """Of every layer, in order; raises UserError where one is not in the table."""
    return [
        LayerLatency(layer.node.name, layer.node.name.partition("/")[0], layer.key, latency_ms)
        for layer, latency_ms in table.layer_latencies_ms(sheet)
    ]


def by_part(layers: Sequence[LayerLatency]) -> dict[str, float]:
    """Milliseconds of backbone, feature_pyramid and box_predictor, those first that come first."""
    parts: dict[str, float] = {}
    for layer in layers:
        parts[layer.part] = parts.get(layer.part, 0.0) + layer.latency_ms
    return parts


def slowest(layers: Sequence[LayerLatency], count: int) -> list[LayerLatency]:
    return sorted(layers, key=lambda layer: -layer.latency_ms)[:count]

"""Where a network's latency comes from: by a latency table, or by the operators of a profile. No
TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnasdet.networks.cost import CostSheet
from mnasdet.tflite.latency.latency_table import LatencyTable


@dataclass(frozen=True)
class LayerLatency:
    """One layer of a network.

    Attributes:
      name: of its node, scopes first; part: the outermost scope.
      layer: its key in the table; the operator's type in a profile.
      latency_ms: what it adds to the network's latency.
    """

    name: str
    part: str
    layer: str
    latency_ms: float


def by_layer(table: LatencyTable, sheet: CostSheet) -> list[LayerLatency]:
    """Returns the latency of every layer, in order; UserError where one is not in the table."""
    return [
        LayerLatency(layer.node.name, layer.node.name.partition("/")[0], layer.key, latency_ms)
        for layer, latency_ms in table.layer_latencies_ms(sheet)
    ]


def by_operator(operators: Sequence[Mapping[str, Any]]) -> list[LayerLatency]:
    """Returns the latency of every operator of a profile, `benchmark_model.read`'s, in order.

    Names are those of the graph's tensors, as `convert` leaves them. A delegate's operators have
    none; they are the part "delegate", in place of the delegate's own line.
    """
    delegated = any(row["within_delegate"] for row in operators)
    layers = []
    for row in operators:
        if row["within_delegate"]:
            layers.append(LayerLatency(row["name"], "delegate", row["type"], row["mean_ms"]))
        elif not (delegated and "Delegate" in row["type"]):
            # The first name of "[detector/backbone/layer_1/relu6/Relu6;…]:0".
            name = re.split(r"[;,\]]", row["name"].lstrip("["))[0].removeprefix("detector/")
            part = name.partition("/")[0] if "/" in name else "other"
            layers.append(LayerLatency(name, part, row["type"], row["mean_ms"]))
    return layers


def by_part(layers: Sequence[LayerLatency]) -> dict[str, float]:
    """Sums milliseconds by backbone, feature_pyramid and box_predictor, in their order."""
    parts: dict[str, float] = {}
    for layer in layers:
        parts[layer.part] = parts.get(layer.part, 0.0) + layer.latency_ms
    return parts


def slowest(layers: Sequence[LayerLatency], count: int) -> list[LayerLatency]:
    return sorted(layers, key=lambda layer: -layer.latency_ms)[:count]

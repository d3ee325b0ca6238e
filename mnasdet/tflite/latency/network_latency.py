"""What a whole network takes on a device."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mnasdet.networks.builder import Node
from mnasdet.tflite.devices.device import Device
from mnasdet.tflite.devices.repeats import typical_ms
from mnasdet.tflite.latency.network_graph import network_graph


@dataclass(frozen=True)
class Measured:
    """The latency of a whole network.

    Attributes:
      latency_ms: the median over several executions of each one's median; of its mean on a device
        that tells no median.
      iqr_ms: interquartile range of the executions' medians.
      noisy: whether the executions or their runs differ too much to rely on the median.
    """

    latency_ms: float
    iqr_ms: float
    noisy: bool


def network_latency(outputs: Sequence[Node], device: Device) -> Measured:
    """A whole network as a float32 TFLite file on the device. The weights are random, for they
    make no difference."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.tflite"
        path.write_bytes(network_graph(outputs))
        result = device.benchmark(path)
    return Measured(typical_ms(result), result["iqr_ms"], result["noisy"])

"""The latency of a whole network on a device."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from mnasdet.networks.graph import Network
from mnasdet.tflite.devices.device import Device
from mnasdet.tflite.devices.repeats import typical_ms
from mnasdet.tflite.latency.network_graph import network_graph


@dataclass(frozen=True)
class Measured:
    """The latency of a whole network for one image.

    Attributes:
      latency_ms: the sum over the graphs, each as often as it runs. A graph's latency is the median
        over several executions of each one's median; of its mean on a device that tells no median.
      iqr_ms: interquartile range of the executions' medians, summed likewise.
      noisy: whether the executions or their runs differ too much to rely on the median.
    """

    latency_ms: float
    iqr_ms: float
    noisy: bool


def network_latency(network: Network, device: Device) -> Measured:
    """Measures a whole network on the device, each graph as a float32 TFLite file.

    The weights are random, for they make no difference.
    """
    latency_ms = iqr_ms = 0.0
    noisy = False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.tflite"
        for graph in network:
            path.write_bytes(network_graph(graph.nodes))
            result = device.benchmark(path)
            latency_ms += graph.times * typical_ms(result)
            iqr_ms += graph.times * result["iqr_ms"]
            noisy = noisy or result["noisy"]
    return Measured(latency_ms, iqr_ms, noisy)

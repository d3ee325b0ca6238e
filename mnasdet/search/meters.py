"""Measures candidates as a whole: as TFLite files on a device, or as `predict` in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from mnasdet.search.candidate import Candidate
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.devices.factory import opened
from mnasdet.tflite.latency.network_latency import Measured, network_latency
from mnasdet.timing.predict import PredictTimer

Measure = Callable[[Candidate], Measured]


class Meter(Protocol):
    """Measures candidates.

    Attributes:
      turns: how often each of a few networks is measured where the fastest turn counts.
    """

    turns: int

    def opened(self) -> AbstractContextManager[Measure]:
        """Returns what measures; nobody else measures on the device until the context ends."""
        ...


class TfliteMeter:
    """Converts the networks to float32 TFLite and measures the files."""

    turns = 5

    def __init__(self, spec: DeviceSpec) -> None:
        self._spec = spec

    @contextmanager
    def opened(self) -> Iterator[Measure]:
        with opened(self._spec) as device:
            yield lambda candidate: network_latency(candidate.network, device)


class PredictMeter:
    """Times detection from the network's input to boxes, in TensorFlow on this machine."""

    # Each builds and compiles the model anew, which takes seconds.
    turns = 2

    def __init__(self, spec: DeviceSpec) -> None:
        self._timer = PredictTimer(spec)

    @contextmanager
    def opened(self) -> Iterator[Measure]:
        with self._timer.held() as benchmark:

            def measure(candidate: Candidate) -> Measured:
                result = benchmark(candidate.blueprint)
                return Measured(result["median_ms"], result["iqr_ms"], result["noisy"])

            yield measure

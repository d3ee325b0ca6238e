"""A device: what times TFLite graphs. This machine, with the runtime or with benchmark_model, or a
phone."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mnasdet.errors import ConfigError
from mnasdet.tflite.devices.benchmark_model import Options
from mnasdet.tflite.devices.provenance import of_graph
from mnasdet.tflite.devices.repeats import Repeats, repeated
from mnasdet.tflite.interpreter import read_graph

KINDS = ("host", "adb")


class Device(Protocol):
    """An open device: nobody else measures on it meanwhile."""

    def provenance(self) -> dict[str, Any]:
        """Returns what figures measured now depend on, by the names of `provenance.provenance`."""
        ...

    def benchmark(self, graph: str | os.PathLike) -> dict[str, Any]:
        """Measures latency and memory of one graph.

        The keys are those of `repeats.repeated`, with warmup_runs, model_bytes and provenance.
        Every device has the same keys, None where it does not tell.

        Raises:
          UserError: the graph cannot be run, or not in time.
        """
        ...

    def quick_ms(self, graphs: Sequence[str | os.PathLike]) -> list[float]:
        """Returns the milliseconds of each of many graphs, in little time.

        Each graph is loaded once and run for a moment. Their files' names have to differ.
        """
        ...


@dataclass(frozen=True)
class Cooling:
    """The wait of a phone ahead of every execution, until it has cooled down.

    Attributes:
      max_temperature_c: of the hottest core, degrees Celsius; of the battery where the device
        hides the cores'. One that is hotter and cools down no more is measured as it is.
      max_seconds: for one wait.
    """

    max_temperature_c: float = 40.0
    max_seconds: float = 60.0


@dataclass(frozen=True)
class DeviceSpec:
    """Which device, and how it measures.

    Attributes:
      kind: host or adb.
      serials: of the phones to choose from, the first that is free; none if only one is there.
      binary: `benchmark_model`, built for the device; empty: the runtime of this machine's Python.
      options: of the binary; without one num_threads, num_runs, warmup_runs and taskset count.
      device_folder: of a phone, where programs may be put and executed.
      timeout_seconds: for one execution, and for copying one file.
    """

    kind: str = "host"
    serials: Sequence[str] = ()
    binary: str = ""
    options: Options = field(default_factory=Options)
    repeats: Repeats = field(default_factory=Repeats)
    cooling: Cooling = field(default_factory=Cooling)
    device_folder: str = "/data/local/tmp"
    timeout_seconds: float = 600.0

    def __post_init__(self) -> None:
        if self.kind == "adb" and not self.binary:
            raise ConfigError(
                "--device=adb: needs --benchmark_binary, TFLite's benchmark_model for the phone; "
                "tflite/README.md says where to get it"
            )


def timed(
    device: Device,
    spec: DeviceSpec,
    graph: str | os.PathLike,
    condition: Callable[[], dict[str, Any]],
    execute: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Measures as `Device.benchmark` for every kind of device.

    Args:
      condition: what may change while it is measured, as `provenance.host_condition`.
      execute: loads and times the graph once; gives what `benchmark_model.read` does.
    """
    content = read_graph(graph)
    # A governor that changed or a core that grew hot in between explains a figure that does not
    # fit.
    before = condition()
    result = repeated(execute, spec.repeats)
    return result | {
        "warmup_runs": spec.options.warmup_runs,
        "model_bytes": len(content),
        "provenance": device.provenance()
        | {"before": before, "after": condition()}
        | of_graph(graph, content),
    }


def parse(device: str) -> tuple[str, list[str]]:
    """Splits "adb:SERIAL,SERIAL" into kind and serial numbers; raises ConfigError."""
    kind, _, serials = device.partition(":")
    if kind not in KINDS or device in ("adb:", f"host:{serials}"):
        raise ConfigError(f"--device={device}: host, adb or adb:SERIAL is needed")
    return kind, serials.split(",") if serials else []

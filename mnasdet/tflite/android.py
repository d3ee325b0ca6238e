"""Times TFLite graphs on an Android device with TFLite's own `benchmark_model`."""

from __future__ import annotations

import os
import re
import shlex
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from absl import logging

from mnasdet.errors import UserError
from mnasdet.tflite import adb, benchmark_model, native
from mnasdet.tflite.interpreter import read_graph

_BINARY = "benchmark_model"
_GRAPH = "graph.tflite"

# The thermal zones of the processor's cores, by the names that the makers of chips give them;
# phones have dozens of others, some of which are no temperatures at all.
_CORE_ZONES = re.compile(r"cpu|cluster|soc_thermal|^(big|mid|little)", re.IGNORECASE)
# A device that loses less between two looks has cooled down as far as it will.
_COOLING_POLL_SECONDS = 5.0
_COOLING_STEP_C = 0.3

_CONDITION = """
for zone in /sys/class/thermal/thermal_zone*; do
  echo "zone $(cat $zone/type) $(cat $zone/temp)"
done
for core in /sys/devices/system/cpu/cpu[0-9]*; do
  echo "governor $(cat $core/cpufreq/scaling_governor)"
done
dumpsys battery
"""


@dataclass(frozen=True)
class Cooling:
    """What is waited for ahead of every execution.

    Attributes:
      max_temperature_c: of the hottest core, degrees Celsius; of the battery where the device
        hides the cores'. One that is hotter and cools down no more is measured as it is.
      max_seconds: for one wait.
    """

    max_temperature_c: float = 40.0
    max_seconds: float = 60.0


def benchmark(
    graph: str | os.PathLike,
    binary: str | os.PathLike,
    options: benchmark_model.Options,
    repeats: native.Repeats,
    *,
    serials: Sequence[str] = (),
    cooling: Cooling | None = None,
    device_folder: str = "/data/local/tmp",
    timeout_seconds: float = 600.0,
) -> dict[str, Any]:
    """Latency and memory of one graph on an Android device, which is left as it was.

    Args:
      graph: a TFLite file.
      binary: `benchmark_model`, built for the device.
      serials: of the devices to choose from, the first that is free; none if only one is there.
      device_folder: of the device, where programs may be put and executed.
      timeout_seconds: for one execution, and for copying one file.

    Returns:
      As `native.repeated`, with model_bytes and provenance.

    Raises:
      UserError: as `adb.find` and `benchmark_model.read`; a file is missing; the device does not
        take it, hangs or is lost.
    """
    content = read_graph(graph)
    program = native.check_binary(binary)
    with (
        adb.borrowed(adb.find(serials)) as device,
        _scratch_folder(device, device_folder) as folder,
    ):
        device.push(program, f"{folder}/{_BINARY}", timeout_seconds)
        device.push(Path(graph), f"{folder}/{_GRAPH}", timeout_seconds)
        properties = device.properties()
        before = _condition(device)
        command = _command(folder, options)

        def execute() -> dict[str, Any]:
            _cool_down(device, cooling or Cooling())
            status, output = device.shell(command, timeout_seconds)
            return benchmark_model.read(output, status, options, f"{binary} on {device}")

        result = native.repeated(execute, repeats)
        return result | {
            "warmup_runs": options.warmup_runs,
            "model_bytes": len(content),
            "provenance": _provenance(device, properties)
            | {"before": before, "after": _condition(device)}
            | native.measured(graph, content, binary, options),
        }


@contextmanager
def _scratch_folder(device: adb.Device, parent: str) -> Iterator[str]:
    """A new folder on the device; at the end it is gone, and what ran in it."""
    folder = f"{parent}/mnasdet-{uuid.uuid4().hex}"
    name = shlex.quote(folder)
    try:
        status, output = device.shell(f"cd {shlex.quote(parent)} && mkdir -p {name}")
        if status:
            raise UserError(f"{device}: cannot make a folder in {parent}: {output.strip()}")
        yield folder
    finally:
        try:
            device.shell(f"kill -9 $(cat {name}/pid) 2>/dev/null; rm -rf {name}")
        except UserError as error:
            logging.warning("%s; %s is still there", error, folder)


def _command(folder: str, options: benchmark_model.Options) -> str:
    """Runs the binary. While it does, its process's number is in the file pid: a lost connection
    ends no process on the device."""
    run = f"echo $$ >pid; exec {shlex.join(options.command(f'./{_BINARY}', _GRAPH))}"
    return (
        f"cd {shlex.quote(folder)} || exit; kill -9 $(cat pid 2>/dev/null) 2>/dev/null; "
        f"chmod 755 {_BINARY}; sh -c {shlex.quote(run)}; s=$?; rm -f pid; exit $s"
    )


def _cool_down(device: adb.Device, cooling: Cooling) -> None:
    deadline = time.monotonic() + cooling.max_seconds
    previous = float("inf")
    while time.monotonic() < deadline:
        temperature = _condition(device)["temperature_c"]
        if temperature is None or temperature <= cooling.max_temperature_c:
            return
        if temperature > previous - _COOLING_STEP_C:
            return
        previous = temperature
        time.sleep(_COOLING_POLL_SECONDS)


def _condition(device: adb.Device) -> dict[str, Any]:
    """What may change while it is measured; None for what the device does not tell."""
    output = device.shell(_CONDITION)[1]
    battery = dict(re.findall(r"^\s*(level|temperature): (\d+)\s*$", output, re.M))
    battery_c = int(battery["temperature"]) / 10 if "temperature" in battery else None
    zones = re.findall(r"^zone (\S+) (\d+)\s*$", output, re.M)
    # Most kernels count in thousandths of a degree, some in degrees.
    degrees = [
        int(value) / (1000 if int(value) > 1000 else 1)
        for zone, value in zones
        if _CORE_ZONES.search(zone)
    ]
    return {
        "temperature_c": max(degrees, default=battery_c),
        "battery_temperature_c": battery_c,
        "battery_percent": int(battery["level"]) if "level" in battery else None,
        "governors": sorted(set(re.findall(r"^governor (\w+)\s*$", output, re.M))),
    }


def _provenance(device: adb.Device, properties: dict[str, str]) -> dict[str, Any]:
    def first(*names: str) -> str:
        return next((properties[name] for name in names if properties.get(name)), "")

    return {
        "device": "adb",
        "serial": device.serial,
        "manufacturer": first("ro.product.manufacturer"),
        "model": first("ro.product.model"),
        # The first is Android 12's; before, the board's platform tells it.
        "soc": first("ro.soc.model", "ro.board.platform", "ro.hardware"),
        "android": first("ro.build.version.release"),
        "build": first("ro.build.fingerprint"),
        "abis": first("ro.product.cpu.abilist", "ro.product.cpu.abi").split(","),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }

"""Times TFLite graphs on an Android device with TFLite's own `benchmark_model`."""

from __future__ import annotations

import os
import re
import shlex
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from absl import logging

from mnasdet.errors import UserError
from mnasdet.tflite.devices import adb
from mnasdet.tflite.devices.benchmark_model import (
    Options,
    check_binary,
    for_quick_ms,
    of_binary,
    quick_ms,
    read,
)
from mnasdet.tflite.devices.device import Cooling, DeviceSpec, timed
from mnasdet.tflite.devices.provenance import provenance
from mnasdet.tflite.interpreter import read_graph

_BINARY = "benchmark_model"
_GRAPH = "graph.tflite"
_STATUS = "mnasdet-execution="
# The shell is killed first: it would begin the next execution.
_KILL = "for p in session pid; do kill -9 $(cat $p 2>/dev/null) 2>/dev/null; done"

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


@contextmanager
def opened(spec: DeviceSpec) -> Iterator[Phone]:
    """Yields an Android device for this process alone, with the binary on it.

    In the end the device is left as it was.

    Raises:
      UserError: as `adb.find`; the binary is missing; the device does not take it or is lost.
    """
    program = check_binary(spec.binary)
    with (
        adb.borrowed(adb.find(spec.serials)) as device,
        _scratch_folder(device, spec.device_folder) as folder,
    ):
        device.push([program], f"{folder}/{_BINARY}", spec.timeout_seconds)
        yield Phone(device, folder, program, spec)


class Phone:
    """A Device: an Android device through adb."""

    def __init__(self, device: adb.Device, folder: str, program: Path, spec: DeviceSpec) -> None:
        """Args:
        folder: on the device, with the binary in it.
        program: the binary on this machine.
        """
        self._device = device
        self._folder = folder
        self._program = program
        self._spec = spec
        self._properties = device.properties()

    def provenance(self) -> dict[str, Any]:
        def first(*names: str) -> str:
            return next((self._properties[n] for n in names if self._properties.get(n)), "")

        return provenance(
            device="adb",
            serial=self._device.serial,
            manufacturer=first("ro.product.manufacturer"),
            model=first("ro.product.model"),
            # The first is Android 12's; before, the board's platform tells it.
            soc=first("ro.soc.model", "ro.board.platform", "ro.hardware"),
            operating_system=f"Android {first('ro.build.version.release')}".strip(),
            build=first("ro.build.fingerprint"),
            abis=first("ro.product.cpu.abilist", "ro.product.cpu.abi").split(","),
            governors=_condition(self._device)["governors"],
            taskset=self._spec.options.taskset,
            **of_binary(self._program, self._spec.options),
        )

    def benchmark(self, graph: str | os.PathLike) -> dict[str, Any]:
        read_graph(graph)  # ahead of what takes long
        options = self._spec.options
        self._device.push([Path(graph)], f"{self._folder}/{_GRAPH}", self._spec.timeout_seconds)
        command = self._command([_GRAPH], options)

        def execute() -> dict[str, Any]:
            _cool_down(self._device, self._spec.cooling)
            ((status, output),) = self._execute(command, 1)
            return self._read(output, status, options)

        return timed(self, self._spec, graph, lambda: _condition(self._device), execute)

    def quick_ms(self, graphs: Sequence[str | os.PathLike]) -> list[float]:
        """Times all graphs in one session of the shell: connecting takes longer than a graph."""
        options = for_quick_ms(self._spec.options)
        paths = [Path(graph) for graph in graphs]
        self._device.push(paths, f"{self._folder}/", self._spec.timeout_seconds)
        _cool_down(self._device, self._spec.cooling)
        names = [path.name for path in paths]
        answers = self._execute(self._command(names, options), len(names))
        self._device.shell(f"cd {shlex.quote(self._folder)} && rm -f {shlex.join(names)}")
        return [quick_ms(self._read(output, status, options)) for status, output in answers]

    def _command(self, names: Sequence[str], options: Options) -> str:
        """Returns a command that runs the binary on graphs in the folder, one after another.

        Each graph has a process of its own, and its status is printed after its output. While one
        runs, its process's number is in the file pid, the shell's in session: a lost connection
        ends no process on the device.
        """
        run = shlex.join(options.command(f"./{_BINARY}", "")).replace("--graph=", '--graph="$g"')
        session = (
            f"echo $$ >session; for g in {shlex.join(names)}; do {run} & echo $! >pid; wait $!; "
            f"s=$?; rm -f pid; echo; echo {_STATUS}$s; done; rm -f session"
        )
        return (
            f"cd {shlex.quote(self._folder)} || exit; {_KILL}; chmod 755 {_BINARY}; "
            f"sh -c {shlex.quote(session)}"
        )

    def _execute(self, command: str, count: int) -> list[tuple[int, str]]:
        """Returns exit status and output of the `count` executions of a command."""
        status, output = self._device.shell(command, self._spec.timeout_seconds)
        answers = re.findall(rf"(.*?)\n{_STATUS}(\d+)\n", output, re.DOTALL)
        if len(answers) != count:
            last = " ".join(output.split())[-200:]
            raise UserError(f"{self._device}: the shell failed with status {status}: {last}")
        return [(int(done), printed) for printed, done in answers]

    def _read(self, output: str, status: int, options: Options) -> dict[str, Any]:
        return read(output, status, options, f"{self._spec.binary} on {self._device}")


@contextmanager
def _scratch_folder(device: adb.Device, parent: str) -> Iterator[str]:
    """Yields a new folder on the device; at the end it is gone, and what ran in it."""
    folder = f"{parent}/mnasdet-{uuid.uuid4().hex}"
    name = shlex.quote(folder)
    try:
        status, output = device.shell(f"cd {shlex.quote(parent)} && mkdir -p {name}")
        if status:
            raise UserError(f"{device}: cannot make a folder in {parent}: {output.strip()}")
        yield folder
    finally:
        try:
            device.shell(f"cd {name} && {{ {_KILL}; rm -rf {name}; }}")
        except UserError as error:
            logging.warning("%s; %s is still there", error, folder)


def _cool_down(device: adb.Device, cooling: Cooling) -> None:
    deadline = time.monotonic() + cooling.max_seconds
    previous = float("inf")
    while time.monotonic() < deadline:
        temperature = _condition(device)["temperature_c"]
        if temperature is None or temperature <= cooling.max_temperature_c:
            return
        # Waiting longer would not help: a phone in a warm room may never get below the limit.
        if temperature > previous - _COOLING_STEP_C:
            return
        previous = temperature
        time.sleep(_COOLING_POLL_SECONDS)


def _condition(device: adb.Device) -> dict[str, Any]:
    """Returns what may change while it is measured; None for what the device does not tell."""
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

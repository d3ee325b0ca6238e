"""Where and with what figures were measured: the same names for every device."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# The fields that tell one device from another: figures of two are never put into one table.
DEVICE_FIELDS = (
    "device",
    "model",
    "cpu",
    "soc",
    "governors",
    "runtime",
    "binary_sha256",
    "delegate_options",
    "num_threads",
    "taskset",
)

# None where a device has nothing of the kind.
_FIELDS: dict[str, Any] = {
    "device": None,  # host or adb
    "serial": None,
    "manufacturer": None,
    "model": None,
    "cpu": None,
    "soc": None,
    "operating_system": None,
    "build": None,
    "abis": None,
    "governors": None,
    "python": None,
    "runtime": None,
    "binary_sha256": None,
    "delegate_options": None,
    "num_threads": None,
    "taskset": None,
}


def provenance(**known: Any) -> dict[str, Any]:
    """Returns every field, and the date, ISO 8601 in UTC."""
    assert known.keys() <= _FIELDS.keys(), known.keys() - _FIELDS.keys()
    return _FIELDS | known | {"date": datetime.now(timezone.utc).isoformat(timespec="seconds")}


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """Returns the first field by which two provenances are of different devices.

    Older tables do not name the governors: they may have had any.
    """
    for field in DEVICE_FIELDS:
        values = [provenance.get(field) or None for provenance in (one, other)]
        if values[0] != values[1] and not (field == "governors" and None in values):
            return field
    return None


def of_host(runtime: str, num_threads: int, taskset: str, **known: Any) -> dict[str, Any]:
    return provenance(
        device="host",
        cpu=cpu_model(),
        operating_system=platform.platform(),
        governors=host_condition()["governors"],
        runtime=runtime,
        num_threads=num_threads,
        taskset=taskset,
        **known,
    )


def of_graph(graph: str | os.PathLike, content: bytes) -> dict[str, Any]:
    """Returns the graph that was run."""
    return {"graph": os.fspath(graph), "graph_sha256": sha256(content)}


def host_condition() -> dict[str, Any]:
    """Returns what may change while it is measured, as on a phone; None for what is not told."""
    cores = Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return {
        "temperature_c": None,
        "battery_temperature_c": None,
        "battery_percent": None,
        "governors": sorted({path.read_text().strip() for path in cores}),
    }


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if sys.platform == "darwin":
        # platform.processor() is "arm" for every one of Apple's, which differ by a factor.
        name = ["sysctl", "-n", "machdep.cpu.brand_string"]
        told = subprocess.run(name, capture_output=True, text=True, check=False)
        if told.stdout.strip():
            return told.stdout.strip()
    return platform.processor() or platform.machine()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

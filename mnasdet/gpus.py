"""NVIDIA GPUs of this machine, found without TensorFlow."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence


def listed() -> list[str]:
    """Returns the names of all GPUs that nvidia-smi lists; none where it is missing or fails."""
    try:
        found = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [] if found.returncode else [name.strip() for name in found.stdout.splitlines() if name]


def visible() -> list[str]:
    """Returns what CUDA_VISIBLE_DEVICES calls the GPUs that processes of this one see."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(number) for number in range(len(listed()))]
    devices = [name.strip() for name in named.split(",")]
    # CUDA stops at the first name that is no device.
    none = next((place for place, name in enumerate(devices) if name in ("", "-1")), len(devices))
    return devices[:none]


def shared_out(devices: Sequence[str], count: int) -> list[str]:
    """Returns what CUDA_VISIBLE_DEVICES is for each of `count` processes, all GPUs in turns.

    A GPU is shared where there are more processes, and a process has several where there are fewer.
    """
    if not devices:
        return []
    return [
        ",".join(devices[number::count] or [devices[number % len(devices)]])
        for number in range(count)
    ]

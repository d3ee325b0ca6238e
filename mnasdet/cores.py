"""The processor cores of this machine: how many there are for us, and who runs on which."""

from __future__ import annotations

import os
from collections.abc import Collection


def available() -> set[int]:
    """Returns the numbers of the cores that this process may use.

    Where the system cannot tell, as on macOS, those are all cores.
    """
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def can_pin() -> bool:
    """Returns whether the system lets us choose the cores of a process; macOS does not."""
    return hasattr(os, "sched_setaffinity")


def pin(process_id: int, cores: Collection[int]) -> None:
    """Lets a process run on these cores only."""
    os.sched_setaffinity(process_id, cores)

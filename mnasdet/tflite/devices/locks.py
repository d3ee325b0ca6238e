"""Locks a device for one process of this user."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from absl import logging

from mnasdet import files
from mnasdet.errors import UserError

_POLL_SECONDS = 0.2


@contextmanager
def first_free(names: Sequence[str], timeout_seconds: float = 3600.0) -> Iterator[str]:
    """Yields the first of the devices that is free, held for this thread alone; waits if need be.

    Raises:
      UserError: none became free within the time.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        for name in names:
            # The system frees the lock of a process that dies.
            with open(_path(name), "a") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield name
                return
        wanted = ", ".join(names)
        logging.log_first_n(logging.INFO, "waiting for device %s, in use", 1, wanted)
        if time.monotonic() > deadline:
            raise UserError(f"device {wanted}: not free within {timeout_seconds:g} s")
        time.sleep(_POLL_SECONDS)


def _path(name: str) -> Path:
    folder = files.cache_folder() / "devices"
    files.make_folder(folder)
    return folder / f"{quote(name, safe='')}.lock"

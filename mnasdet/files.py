"""Files that are whole or not there at all, and folders that one process has for itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from mnasdet.errors import UserError


def write(path: str | os.PathLike, content: bytes | str) -> None:
    """Writes beside `path`, then renames: readers see the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps every other process out of a folder, which is made if missing.

    Raises:
      UserError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is at work in {folder}") from None
        yield

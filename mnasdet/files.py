"""Files that are whole or not there at all."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: str | os.PathLike, content: bytes | str) -> None:
    """Writes beside `path`, then renames: readers see the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(partial, path)

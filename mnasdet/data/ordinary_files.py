"""Tells files that can be read to their end from what only has a name like one."""

from __future__ import annotations

import os
import stat

# Uncompressed, 100 million pixels of four channels of 16 bits have 800 MB.
MAX_PICTURE_BYTES = 1 << 30

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def size(path: str | os.PathLike[str]) -> int:
    """Returns the bytes of an ordinary file, which links may lead to, without opening it.

    Opening a pipe waits for its writer, perhaps for ever; a device such as /dev/zero has no end.

    Raises:
      OSError: when there is no file.
      ValueError: when it is something else than an ordinary file.
    """
    status = os.stat(path)
    if stat.S_ISREG(status.st_mode):
        return status.st_size
    kinds = [name for is_kind, name in _KINDS if is_kind(status.st_mode)]
    raise ValueError(f"is no ordinary file but {kinds[0] if kinds else 'something else'}")


def check_picture(path: str | os.PathLike[str]) -> None:
    """Raises as `size`, and ValueError for a file that is too large for a picture."""
    if (num_bytes := size(path)) > MAX_PICTURE_BYTES:
        raise ValueError(f"is too large: {num_bytes:,} bytes, more than {MAX_PICTURE_BYTES:,}")

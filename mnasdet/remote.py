"""Files on other file systems, such as gs://bucket/folder, which TensorFlow opens.

Our own code works on local files: of those elsewhere it gets copies, and `Mirror` copies back.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mnasdet.errors import UserError, foreign_line

# pathlib makes gs:/bucket of gs://bucket. A scheme of one letter would be a drive.
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.DOTALL)

# Files that stand beside a checkpoint and say what it is one of.
_BESIDE = (".textproto", ".pbtxt", ".config")


def url(path: str | os.PathLike) -> str:
    """Returns the URL of a path on another file system, "" for one on this machine's."""
    found = _URL.fullmatch(os.fspath(path))
    return f"{found[1]}://{found[2]}" if found and found[1] != "file" else ""


def refuse(path: str | os.PathLike) -> None:
    """Raises UserError for a path on another file system."""
    if address := url(path):
        raise UserError(
            f"{address}: is on another file system, where only train.py writes; name a local path"
        )


def read(address: str) -> bytes:
    """Returns the content of the file at a URL.

    Raises:
      OSError: it cannot be read.
    """
    with _as_os_error(address), _gfile().GFile(address, "rb") as file:
        return file.read()


def local(path: str | os.PathLike) -> str:
    """Returns a copy of a folder, a file or a checkpoint at a URL, and a local path as it is.

    Folders inside of a folder are left out. The copy is kept for as long as this process lives.

    Raises:
      UserError: it cannot be read.
    """
    address = url(path)
    if not address:
        return os.fspath(path)
    with _as_user_error(address):
        gfile = _gfile()
        folder, base = os.path.split(address.rstrip("/"))
        # First, because file systems differ in what they call a folder.
        if gfile.exists(f"{address}.index"):
            chosen = {
                name: stamp
                for name, stamp in _files(folder).items()
                if name.startswith(f"{base}.") or name.endswith(_BESIDE)
            }
        elif gfile.isdir(address):
            folder, base, chosen = address, "", _files(address)
        else:
            stat = gfile.stat(address)
            chosen = {base: (stat.length, stat.mtime_nsec)}
        return os.path.join(_copied(folder, tuple(sorted(chosen.items()))).name, base)


@functools.cache
def _copied(folder: str, files: tuple[tuple[str, Any], ...]) -> tempfile.TemporaryDirectory:
    copy = tempfile.TemporaryDirectory(prefix="mnasdet-copy-")
    for name, _ in files:
        _gfile().copy(os.path.join(folder, name), os.path.join(copy.name, name))
    return copy


def _files(folder: str) -> dict[str, tuple[int, int]]:
    """Returns the files in a folder at a URL with their lengths and times."""
    gfile = _gfile()
    found = {}
    for name in gfile.listdir(folder):
        place = os.path.join(folder, name)
        if not gfile.isdir(place):
            stat = gfile.stat(place)
            found[name] = (stat.length, stat.mtime_nsec)
    return found


class Mirror:
    """A local folder of which `send` makes another one the copy.

    Attributes:
      folder: the local one.
    """

    def __init__(self, folder: Path, address: str = ""):
        self.folder = folder
        self._address = address
        self._sent: dict[Path, tuple[int, int]] = {}

    def fetch(self) -> None:
        """Copies what the other folder has, with the folders in it.

        Raises:
          UserError: it cannot be read.
        """
        gfile = _gfile()
        with _as_user_error(self._address):
            if not gfile.exists(self._address):
                gfile.makedirs(self._address)
            for place, _, names in gfile.walk(self._address):
                inner = self.folder / place.removeprefix(self._address).strip("/")
                inner.mkdir(parents=True, exist_ok=True)
                for name in names:
                    gfile.copy(os.path.join(place, name), str(inner / name), overwrite=True)
        self._sent = self._stamps()

    def send(self) -> None:
        """Makes the other folder what the local one is; nothing without an address.

        What says that a checkpoint is there goes after its data, and what is gone here goes last.

        Raises:
          UserError: it cannot be written.
        """
        if not self._address:
            return
        gfile, stamps = _gfile(), self._stamps()
        changed = [path for path, stamp in stamps.items() if self._sent.get(path) != stamp]
        with _as_user_error(self._address):
            for path in sorted(changed, key=lambda path: (".data" not in path.name, path)):
                place = os.path.join(self._address, path)
                gfile.makedirs(os.path.dirname(place))
                # Readers see the old file or the new one.
                gfile.copy(str(self.folder / path), f"{place}.partial", overwrite=True)
                gfile.rename(f"{place}.partial", place, overwrite=True)
            for path in self._sent.keys() - stamps.keys():
                gfile.remove(os.path.join(self._address, path))
        self._sent = stamps

    def _stamps(self) -> dict[Path, tuple[int, int]]:
        found = {}
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                stat = path.stat()
                found[path.relative_to(self.folder)] = (stat.st_size, stat.st_mtime_ns)
        return found


@contextlib.contextmanager
def mirrored(path: str | os.PathLike) -> Iterator[Mirror]:
    """Gives a folder to work in: the local one itself, or a copy of the one at a URL."""
    address = url(path)
    if not address:
        yield Mirror(Path(path))
        return
    with tempfile.TemporaryDirectory(prefix="mnasdet-mirror-") as folder:
        mirror = Mirror(Path(folder), address.rstrip("/"))
        mirror.fetch()
        yield mirror


def _gfile() -> Any:
    # TensorFlow takes seconds to load, and local paths do without it.
    import tensorflow as tf

    return tf.io.gfile


@contextlib.contextmanager
def _as_os_error(address: str) -> Iterator[None]:
    import tensorflow as tf

    try:
        yield
    except tf.errors.NotFoundError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), address) from None
    except tf.errors.OpError as error:
        raise OSError(errno.EIO, foreign_line(error), address) from None


@contextlib.contextmanager
def _as_user_error(address: str) -> Iterator[None]:
    try:
        with _as_os_error(address):
            yield
    except OSError as error:
        raise UserError(f"{address}: {error.strerror}") from None

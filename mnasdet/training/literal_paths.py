"""Names for TensorFlow's readers of checkpoints, which take a path for a pattern."""

from __future__ import annotations

import functools
import os
import secrets
import tempfile

# Characters that TensorFlow reads as a pattern.
_MAGIC = set("*?[]\\")


def literal(path: str | os.PathLike) -> str:
    """Returns a name of a file, a folder or a checkpoint's prefix that means just that one.

    There is no way to quote a sign: a reader that is given run\\[1\\] finds it and then opens a
    file of that very name. So the folder gets another name, a link, for as long as this process
    lives: readers open their files late.
    """
    path = os.fspath(path)
    if not _MAGIC & set(path):
        return path
    folder, name = os.path.split(os.path.abspath(path))
    if _MAGIC & set(name):  # A folder; our checkpoints have plain names.
        return _link(os.path.join(folder, name))
    return os.path.join(_link(folder), name)


@functools.cache
def _link(folder: str) -> str:
    link = os.path.join(_links().name, secrets.token_hex(8))
    os.symlink(folder, link)
    return link


@functools.cache
def _links() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="mnasdet-links-")


def shown(text: str, path: str | os.PathLike) -> str:
    """Returns a message of TensorFlow about `literal(path)` with the path itself in it."""
    return text.replace(literal(path), os.fspath(path))

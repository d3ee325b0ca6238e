"""Keeps what was found in large record files, so that the next process does not read them again.

A check of ImageNet's records takes minutes. Its result is a file in the cache folder, named by all
that it depends on; processes that want it at the same time wait for the first one.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from mnasdet import files
from mnasdet.data.record_index import RecordIndex
from mnasdet.errors import UserError

# Less is looked at in about a second.
LEAST_BYTES = 200_000_000

# As many indexes of COCO's size have about a gigabyte in all.
_MOST_FILES = 32

_DIGEST_BYTES = hashlib.sha256().digest_size
_BYTES, _LENGTHS = "/bytes", "/lengths"


class Stamp(NamedTuple):
    """Tells a state of a file from any other, without reading it.

    Attributes:
      changed: when the system last changed the file or its name, in ns. A copy that keeps the
        time of its original has a new one. 0 on file systems that are not the machine's own.
    """

    file: str
    num_bytes: int
    modified: int
    changed: int


def stamp(file: str) -> Stamp:
    """Returns the stamp of a file that exists."""
    stat = tf.io.gfile.stat(file)
    changed = os.stat(file).st_ctime_ns if os.path.exists(file) else 0
    return Stamp(file, stat.length, stat.mtime_nsec, changed)


def keeps(stamps: Sequence[Stamp]) -> bool:
    """Returns whether the index of the files is worth a file of its own."""
    return sum(one.num_bytes for one in stamps) >= LEAST_BYTES


def index(stamps: Sequence[Stamp], key: Any, look: Callable[[], RecordIndex]) -> RecordIndex:
    """Returns the index of files: the kept one, or what `look` finds, which is then kept.

    A folder that cannot be written or a damaged file costs time, and nothing else.

    Args:
      key: what the result depends on beside the files; told by its `repr`.
    """
    if not keeps(stamps):
        return look()
    try:
        folder = files.cache_folder() / "record-indexes"
    except UserError:  # There is no home folder.
        return look()
    path = folder / _digest(repr((_code(), tuple(stamps), key)).encode()).hex()
    names = tuple(one.file for one in stamps)
    if kept := _read(path, names):
        return kept
    # Where processes start together, the first one looks, and the others read what it kept.
    with _first(path):
        if kept := _read(path, names):
            return kept
        found = look()
        if found.is_final:
            _write(path, found)
        return found


@contextlib.contextmanager
def _first(path: Path) -> Iterator[None]:
    """Lets one process after the other into the block, where the folder can be written."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, UserError):
            files.make_folder(path.parent)
            lock = stack.enter_context(open(f"{path}.lock", "w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path, names: tuple[str, ...]) -> RecordIndex | None:
    """Returns what a file holds; None where it is missing or damaged."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if _digest(body) != digest:
        logging.warning("%s: is damaged; the records are checked anew", path)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # The oldest are deleted first.
    return _index_of(dict(np.load(io.BytesIO(body), allow_pickle=False)), names)


def _write(path: Path, found: RecordIndex) -> None:
    body = io.BytesIO()
    np.savez(body, **_arrays_of(found))
    content = body.getvalue()
    try:
        files.write(path, _digest(content) + content)
        _delete_oldest(path.parent)
    except (OSError, UserError) as error:
        logging.warning("%s: is not kept, and checked anew next time: %s", path, error)


def _delete_oldest(folder: Path) -> None:
    # Locks have a suffix, and go with their index.
    kept = [path for path in folder.iterdir() if not path.suffix]
    for path in sorted(kept, key=lambda one: one.stat().st_mtime)[:-_MOST_FILES]:
        path.unlink(missing_ok=True)
        Path(f"{path}.lock").unlink(missing_ok=True)


def _arrays_of(found: RecordIndex) -> dict[str, Any]:
    rest = {
        "problems": found.problems,
        "notes": found.notes,
        "decoded_bytes": found.decoded_bytes,
        "num_readable": [len(mask) for mask in found.usable],
    }
    arrays: dict[str, Any] = {
        "usable": np.concatenate([np.zeros(0, bool), *found.usable]),
        "rest": np.frombuffer(json.dumps(rest).encode(), np.uint8),
    }
    for name, values in found.contents.items():
        if values.dtype != object:
            arrays[f"contents/{name}"] = values
            continue
        # Texts of any length, which numpy itself would pickle.
        arrays[f"contents/{name}{_BYTES}"] = np.frombuffer(b"".join(values), np.uint8)
        arrays[f"contents/{name}{_LENGTHS}"] = np.array([len(text) for text in values], np.int64)
    return arrays


def _index_of(arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> RecordIndex:
    rest = json.loads(arrays["rest"].tobytes())
    contents = {}
    for key, values in arrays.items():
        kind, _, name = key.partition("/")
        if kind == "contents" and name.endswith(_BYTES):
            name = name.removesuffix(_BYTES)
            contents[name] = _texts(values, arrays[f"contents/{name}{_LENGTHS}"])
        elif kind == "contents" and not name.endswith(_LENGTHS):
            contents[name] = values
    return RecordIndex(
        files=names,
        usable=tuple(np.split(arrays["usable"], np.cumsum(rest["num_readable"])[:-1])),
        problems=tuple(rest["problems"]),
        notes=Counter(rest["notes"]),
        decoded_bytes=rest["decoded_bytes"],
        contents=contents,
    )


def _texts(joined: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    text, ends = joined.tobytes(), np.cumsum(lengths).tolist()
    # By assignment: numpy would cut the zeros at the end of bytes.
    texts = np.empty(len(ends), object)
    texts[:] = [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return texts


def _code() -> bytes:
    """Returns a digest of what checks records: another version may find more."""
    # All of the folder: an index too few would only cost time, a stale one hides problems.
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return _digest(b"".join(path.read_bytes() for path in sources))


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()

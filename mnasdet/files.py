"""Files that are whole or not there at all, and folders that one process has for itself."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mnasdet import remote, text_files
from mnasdet.errors import UserError

# The member of a JSON file that has the digest of all the others.
_SEAL = "sha256"

_DEVICES = (("/", "dev"), ("/", "proc"))

# Errors of fsync where the file system cannot do it, or not for folders.
_NO_FSYNC = {errno.EINVAL, errno.ENOTSUP}
_NO_FSYNC_OF_FOLDERS = _NO_FSYNC | {errno.EACCES, errno.EPERM}

# Errors of a folder in which nothing can be renamed.
_NO_RENAMING = {errno.EACCES, errno.EPERM, errno.EBUSY, errno.EROFS}


def write(path: str | os.PathLike, content: bytes | str) -> None:
    """Writes beside `path`, then renames: readers see the old file or the new one.

    Both are on the disk when this returns. What a symbolic link points to is replaced, and not the
    link; into a device or a pipe, such as /dev/stdout, the content is written as it is.

    Raises:
      OSError: names `path`; nothing is left of what was begun.
    """
    content = content.encode() if isinstance(content, str) else content
    path = Path(path)
    # /dev/stdout may be a file, which the shell that opened it would not see replaced.
    if _is_device(path):
        path.write_bytes(content)
        return
    try:
        with replacing([path]) as (partial,):
            fill(partial, content)
    except OSError as error:
        # A file that may be written in a folder that may not, or one that is mounted by itself.
        if error.errno not in _NO_RENAMING or not (path.is_file() and os.access(path, os.W_OK)):
            raise
        path.write_bytes(content)


def _is_device(path: Path) -> bool:
    in_memory = path.parts[:3] == ("/", "dev", "shm")
    special = path.parts[:2] in _DEVICES and not in_memory
    return special or (path.exists() and not path.is_file())


def fill(path: str | os.PathLike, content: bytes) -> None:
    """Writes one of the temporary files of `replacing`; it must not exist yet."""
    try:
        with open(path, "xb") as file:
            file.write(content)
    except OSError as error:  # The error of a full disk names no file.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


@contextlib.contextmanager
def replacing(paths: Sequence[str | os.PathLike]) -> Iterator[list[str]]:
    """Gives a name beside each file to write to; all take their places when the block ends well.

    The files have the permissions of those that they replace. An error in the block leaves the old
    files, and nothing of the new ones; one between two renames leaves some of both.

    Raises:
      OSError: names the file of `paths` that cannot be written.
      UserError: one of them is on another file system.
    """
    for path in paths:
        remote.refuse(path)
    # An unpredictable name: nobody can put a link there first. A short one: names have limits.
    places = [Path(os.path.realpath(path)) for path in paths]
    partial = [str(place.with_name(f".{secrets.token_hex(8)}.tmp")) for place in places]
    for place in places:
        make_folder(place.parent)
    # Many files may share few folders.
    folders = list(dict.fromkeys(place.parent for place in places))
    name = {temporary: os.fspath(path) for temporary, path in zip(partial, paths, strict=True)}
    try:
        yield partial
        for temporary in partial:
            _sync(temporary)
        for temporary, place in zip(partial, places, strict=True):
            if place.exists():
                os.chmod(temporary, place.stat().st_mode & 0o777)
            os.replace(temporary, place)
        for folder in folders:
            sync_folder(folder)
    except OSError as error:
        if error.filename not in name:
            raise
        raise OSError(error.errno, error.strerror, name[error.filename]) from None
    finally:
        for temporary in partial:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


@contextlib.contextmanager
def replacing_folder(folder: str | os.PathLike, names: Collection[str]) -> Iterator[Path]:
    """Gives a new folder beside `folder` to fill, which takes its place when the block ends well.

    An error in the block leaves the old folder as it was.

    Args:
      names: of all that such a folder holds. One with something else in it is not replaced.

    Raises:
      UserError: `folder` is a file, or has something else in it.
    """
    place = Path(os.path.realpath(folder))
    if place.exists():
        if not place.is_dir():
            raise UserError(f"{folder}: is a file; a folder is needed here")
        if others := sorted(set(os.listdir(place)) - set(names)):
            raise UserError(
                f"{folder}: holds {others[0]}, which would be lost: the folder is replaced whole; "
                "choose another one"
            )
    make_folder(place.parent)
    partial, old = (place.with_name(f".{secrets.token_hex(8)}.tmp") for _ in range(2))
    try:
        partial.mkdir()
        yield partial
        for parent, _, written in os.walk(partial):
            sync_folder(parent, written)
        if place.exists():
            os.rename(place, old)
        try:
            os.rename(partial, place)
        except OSError:
            if old.exists():
                os.rename(old, place)
            raise
        sync_folder(place.parent)
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)


def _sync(path: str) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno in _NO_FSYNC:
            return
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(file)


def sync_folder(folder: str | os.PathLike, names: Iterable[str] = ()) -> None:
    """Waits until the disk has a folder's list of files, and the files `names` in it.

    Without it a power cut may leave a name without its content.
    """
    for name in names:
        _sync(os.path.join(folder, name))
    try:
        _sync(os.fspath(folder))
    except OSError as error:
        if error.errno not in _NO_FSYNC_OF_FOLDERS:
            raise


def make_folder(folder: str | os.PathLike) -> None:
    """Makes a folder and those above it, where they are missing.

    Raises:
      UserError: one of them is a file, or it is on another file system.
    """
    remote.refuse(folder)
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        for place in (folder, *folder.parents):
            if place.exists() and not place.is_dir():
                raise UserError(f"{place}: is a file; a folder is needed here") from None
        raise


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes JSON with a digest, which `read_json` compares: a flipped digit is still JSON.

    An object gets the member "sha256"; of a list, each object in it gets one.
    """
    sealed = [_sealed(member) for member in value] if isinstance(value, list) else _sealed(value)
    write(path, json.dumps(sealed, indent=2) + "\n")


def _sealed(value: dict[str, Any]) -> dict[str, Any]:
    # As a reader will have it: JSON has names that are text only, and no tuples.
    kept = json.loads(json.dumps(value))
    kept.pop(_SEAL, None)
    return kept | {_SEAL: _digest(kept)}


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_json(
    path: str | os.PathLike,
    kind: str,
    *,
    of: type = dict,
    keys: Collection[str] = (),
    remedy: str = "",
) -> Any:
    """Reads a JSON file of ours; files of older versions, which have no digest, as well.

    Args:
      kind: what the file should be, for messages: "search description".
      of: dict, or list for a list of objects.
      keys: members that the object, or each of the list, has to have.
      remedy: what to do about a damaged file, for messages.

    Raises:
      UserError: one line; the file is missing, cut, damaged or of another kind.
    """
    remedy = remedy and f"; {remedy}"
    text = text_files.read_text(path, _with_remedy(remedy), kind)
    try:
        value = json.loads(text)
    except RecursionError:
        raise UserError(f"{path}: is no {kind}: nested too deep{remedy}") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}: {error.msg}"
        raise UserError(f"{path}: is cut or damaged, no valid JSON ({where}){remedy}") from None
    except ValueError:  # A number of thousands of digits.
        raise UserError(f"{path}: is damaged, no valid JSON{remedy}") from None
    members = value if of is list and isinstance(value, list) else [value]
    if not isinstance(value, of) or not all(isinstance(member, dict) for member in members):
        what = "a list of objects" if of is list else "an object"
        raise UserError(f"{path}: is no {kind}: {what} is needed at the top{remedy}")
    for member in members:
        _check_seal(member, path, remedy)
        if missing := [key for key in keys if key not in member]:
            raise UserError(f'{path}: is no {kind}: "{missing[0]}" is missing{remedy}')
    return value


def _with_remedy(remedy: str) -> Any:
    return lambda message: UserError(f"{message}{remedy}")


def _check_seal(value: dict[str, Any], path: str | os.PathLike, remedy: str) -> None:
    """Takes the digest out of an object that was read, and compares it."""
    if not value:
        return
    # The name of the last member may be what is damaged.
    name, last = list(value.items())[-1]
    rest = {key: member for key, member in value.items() if key != name}
    seal = value.pop(_SEAL, None)
    sound = _digest(value) == seal if seal is not None else _digest(rest) != last
    if not sound:
        raise UserError(
            f'{path}: is damaged: its content and its "{_SEAL}" differ{remedy}; if you changed it '
            f'on purpose, remove "{_SEAL}"'
        )


def matching(pattern: str) -> list[str]:
    """Returns the local files and folders that a path with *, ? or [...] names, sorted.

    What is there under its literal name goes first, folder by folder: a run's folder may be named
    `run[1]` or `what?`. Where a pattern finds nothing, [ in it is a plain character.
    """
    place = "/" if pattern.startswith("/") else ""
    parts = [part for part in pattern.split("/") if part]
    while parts and os.path.exists(os.path.join(place, parts[0])):
        place = os.path.join(place, parts.pop(0))
    found = glob.glob(os.path.join(glob.escape(place), *parts))
    # A file that was written to x[1].record is asked for as x[1].record*.
    literal = [part.replace("[", "[[]") for part in parts]
    return sorted(found or glob.glob(os.path.join(glob.escape(place), *literal)))


def cache_folder() -> Path:
    """Returns the folder of what is made or measured once.

    Raises:
      UserError: there is no home folder to have it in.
    """
    named = os.environ.get("MNASDET_CACHE_DIR")
    if named:
        return Path(named)
    try:
        return Path.home() / ".cache" / "mnasdet"
    except RuntimeError:
        raise UserError(
            "no home folder is known (HOME is not set): name a folder in MNASDET_CACHE_DIR"
        ) from None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps every other process out of a folder, which is made if missing.

    Raises:
      UserError: another process has it.
    """
    make_folder(folder)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is at work in {folder}; wait for it, or choose another folder"
            ) from None
        yield

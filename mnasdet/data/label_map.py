"""Label maps: which class name has which id, in the OD API's text format."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping

from google.protobuf import text_format

from mnasdet import files
from mnasdet.config_checks.label_maps import EXPECTED, items
from mnasdet.data import values
from mnasdet.errors import DataError, shown
from mnasdet.protos import string_int_label_map_pb2


def load(path: str | os.PathLike[str]) -> dict[int, str]:
    """Reads a label map.

    Returns:
      Class id, from 1, to the name shown to people; ids in ascending order, with gaps where the
      file has them. Two classes of one display_name are told apart by their names.

    Raises:
      DataError: when the file is missing or is no valid label map.
    """
    found = items(path)
    shared = Counter(item.display_name or item.name for item in found)
    names: dict[int, str] = {}
    ids: dict[str, int] = {}
    for position, item in enumerate(found, start=1):
        name = item.display_name or item.name
        if shared[name] > 1 and item.display_name and item.name:
            name = f"{item.display_name} ({item.name})"
        where = f"{path}: item {position}" + (f" ({shown(name)!r})" if name else "")
        if not name:
            raise DataError(f"{where}: has neither a name nor a display_name")
        try:
            values.check_name(name)
        except ValueError as problem:
            raise DataError(f"{where}: {problem}") from None
        if item.id < 1:
            met = f"id {item.id}" if item.HasField("id") else "no id"
            raise DataError(
                f"{where}: {met}; ids start at 1, 0 is the background: take out what is no class, "
                "or add 1 to all, in the records, too"
            )
        if item.id in names:
            raise DataError(f"{where}: id {item.id} is already that of {shown(names[item.id])!r}")
        if name in ids:
            raise DataError(f"{where}: the name is already that of id {ids[name]}")
        names[item.id], ids[name] = name, item.id
    if not names:
        raise DataError(f"{path}: the label map has no item; {EXPECTED}")
    return dict(sorted(names.items()))


def differences(held: Mapping[int, str], given: Mapping[int, str], holder: str) -> Iterator[str]:
    """Yields a line for each class that two label maps name differently, or that only one has.

    Args:
      holder: what has the first, for the lines: "the folder".
    """
    for class_id in sorted(held.keys() | given.keys()):
        there, here = (names.get(class_id, "no class") for names in (held, given))
        if there != here:
            yield f"class {class_id} is {there!r} in {holder}, {here!r} in the label map"


def load_ids(path: str | os.PathLike[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Reads the ids that annotations and records mean when they have the name of a class.

    Returns:
      The ids by `name`, and those by a display_name that is no name and means one class only.

    Raises:
      DataError: as `load`.
    """
    shown = ids_of(load(path))
    found = items(path)
    by_name = {item.name: item.id for item in found if item.name}
    shared = Counter(item.display_name for item in found)
    shown |= {item.display_name: item.id for item in found if shared[item.display_name] == 1}
    return by_name, {name: id_ for name, id_ in shown.items() if name and name not in by_name}


def save(path: str | os.PathLike[str], names: Mapping[int, str]) -> None:
    """Writes a label map of class id to name, whole or not at all."""
    files.write(path, to_text(names))


def to_text(names: Mapping[int, str]) -> str:
    """Returns a label map of class id to name as the OD API writes it."""
    proto = string_int_label_map_pb2.StringIntLabelMap()
    for class_id, name in sorted(names.items()):
        proto.item.add(name=name, id=class_id)
    # Without as_utf8, names of other scripts would be octal escapes.
    return text_format.MessageToString(proto, as_utf8=True)


def ids_of(names: Mapping[int, str]) -> dict[str, int]:
    """Turns a label map round: name to class id."""
    return {name: class_id for class_id, name in names.items()}

"""Label maps: which class name has which id, in the OD API's text format."""

from __future__ import annotations

import os
from collections.abc import Mapping

from google.protobuf import text_format

from mnasdet import files, text_proto
from mnasdet.errors import DataError
from mnasdet.protos import string_int_label_map_pb2


def load(path: str | os.PathLike[str]) -> dict[int, str]:
    """Reads a label map.

    Returns:
      Class id, from 1, to the name shown to people; ids in ascending order, with gaps where the
      file has them.

    Raises:
      DataError: when the file is missing or is no valid label map.
    """
    proto = text_proto.read(path, string_int_label_map_pb2.StringIntLabelMap, DataError)
    if not proto.item:
        raise DataError(f"{path}: the label map has no item; expected item {{ id: 1 name: 'cat' }}")
    names: dict[int, str] = {}
    for position, item in enumerate(proto.item, start=1):
        name = item.display_name or item.name
        where = f"{path}: item {position}" + (f" ({name!r})" if name else "")
        if not name:
            raise DataError(f"{where}: has neither a name nor a display_name")
        if item.id < 1:
            met = f"id {item.id}" if item.HasField("id") else "no id"
            raise DataError(f"{where}: {met}; ids start at 1, 0 is the background")
        if item.id in names:
            raise DataError(f"{where}: id {item.id} is already that of {names[item.id]!r}")
        if name in names.values():
            raise DataError(f"{where}: the name is already that of id {ids_of(names)[name]}")
        names[item.id] = name
    return dict(sorted(names.items()))


def save(path: str | os.PathLike[str], names: Mapping[int, str]) -> None:
    """Writes a label map of class id to name, whole or not at all."""
    proto = string_int_label_map_pb2.StringIntLabelMap()
    for class_id, name in sorted(names.items()):
        proto.item.add(name=name, id=class_id)
    files.write(path, text_format.MessageToString(proto, as_utf8=True))


def ids_of(names: Mapping[int, str]) -> dict[str, int]:
    """The label map turned round: name to class id."""
    return {name: class_id for class_id, name in names.items()}

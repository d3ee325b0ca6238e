"""Reads the text of a label map, and says what is wrong with it."""

from __future__ import annotations

import os

from mnasdet import text_proto
from mnasdet.errors import DataError
from mnasdet.protos import string_int_label_map_pb2

EXPECTED = "expected item { id: 1 name: 'cat' } for every class"


def items(path: str | os.PathLike[str]) -> list[string_int_label_map_pb2.StringIntLabelMapItem]:
    """Reads the items of a label map as they are, without the one that may name the background.

    Raises:
      DataError: when the file is missing or no label map.
    """
    text = text_proto.read_text(path, DataError)
    if text.lstrip().startswith(("{", "[")):
        raise DataError(f"{path}: is JSON, not a label map; {EXPECTED}")
    message = string_int_label_map_pb2.StringIntLabelMap
    try:
        proto = text_proto.parse(text, message, str(path), DataError)
    except DataError as error:
        shared = (
            "; two classes share one pair of braces" if " a second time in " in str(error) else ""
        )
        raise DataError(f"{error}{shared}; {EXPECTED}") from None
    # As in the OD API, which allows id 0 under this name alone.
    return [
        item
        for item in proto.item
        if not (item.id == 0 and item.HasField("id") and _names_background(item))
    ]


def _names_background(item: string_int_label_map_pb2.StringIntLabelMapItem) -> bool:
    return "background" in (item.name, item.display_name)

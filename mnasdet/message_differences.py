"""Names the fields in which two protos differ."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def lines(there: Message, here: Message, path: str = "") -> Iterator[str]:
    """Yields one line for each field that two messages of one type do not share.

    Args:
      there: as the folder has it; `here` as the config has it.
      path: of the messages, to name the fields by.
    """
    for field in there.DESCRIPTOR.fields:
        name = f"{path}.{field.name}" if path else field.name
        held, wanted = (_entries(message, field) for message in (there, here))
        if len(held) != len(wanted):
            texts = [_presence(field, entries) for entries in (held, wanted)]
            verb = "has" if field.is_repeated else "is"
            yield f"{name} {verb} {texts[0]} in the folder, {texts[1]} in the config"
        elif field.message_type is None:
            if held != wanted:
                texts = [_text(field, entries) for entries in (held, wanted)]
                yield f"{name} is {texts[0]} in the folder, {texts[1]} in the config"
        else:
            for index, pair in enumerate(zip(held, wanted, strict=True)):
                place = f"[{index}]" if field.is_repeated else ""
                yield from lines(*pair, f"{name}{place}")


def _entries(message: Message, field: FieldDescriptor) -> list[Any]:
    """Returns a field's values: a plain one's default, too; a message only where it is set."""
    value = getattr(message, field.name)
    if field.is_repeated:
        return list(value)
    return [value] if field.message_type is None or message.HasField(field.name) else []


def _presence(field: FieldDescriptor, entries: list[Any]) -> str:
    if field.is_repeated:
        return f"{len(entries)} entries"
    return "set" if entries else "not set"


def _text(field: FieldDescriptor, entries: list[Any]) -> str:
    """Returns the entries as a config has them."""
    texts = []
    for entry in entries:
        out = io.StringIO()
        text_format.PrintFieldValue(field, entry, out)
        texts.append(out.getvalue())
    return f"[{', '.join(texts)}]" if field.is_repeated else texts[0]

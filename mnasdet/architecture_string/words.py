"""The words of a part or a block, its kind and its options, written and read."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message

from mnasdet.architecture_string.grammar import Kind, Option, Piece, fail, split
from mnasdet.errors import nearest
from mnasdet.protos import architecture_pb2


def kind_of(message: Any, kinds: dict[str, Kind]) -> str:
    """Returns the name of the first kind that a message may be of."""
    return next(
        name
        for name, kind in kinds.items()
        if not kind.needs or getattr(message, kind.needs[0]) == kind.needs[1]
    )


def read_kind(piece: Piece, kinds: dict[str, Kind]) -> tuple[str, Piece]:
    """Returns the kind that a piece starts with, and the rest of the piece."""
    text, start = piece
    # The longest name first: `ssd_anchors` begins with the kind `ssd`.
    for name in sorted(kinds, key=len, reverse=True):
        if text == name or text.startswith(f"{name}_"):
            return name, (text[len(name) + 1 :], start + len(name) + 1)
    fail(piece, f"{nearest(text, kinds) if kinds else 'nothing'} is allowed")


def parse(text: str, like: Message) -> Any:
    """Parses a text proto into a message of the type of another."""
    return text_format.Parse(text, type(like)())


def write_options(message: Any, usual: Any, options: Sequence[Option]) -> list[str]:
    """Writes a word for each option that is not as usual, or that is always written."""
    words = []
    for option in options:
        value = getattr(message, option.field)
        if not option.always and value == getattr(usual, option.field):
            continue
        if isinstance(value, architecture_pb2.InputSize):
            sides = [value.height, value.width]
            words.append(option.key + "x".join(map(str, dict.fromkeys(sides))))
            continue
        if option.value is None:
            values = value if hasattr(value, "append") else [value]
            if values:
                words.append(option.key + ",".join(map(_number, values)))
        elif value == option.value:
            words.append(option.key)
    return words


def _number(value: float) -> str:
    """Returns the shortest decimal of a float32."""
    if isinstance(value, int):
        return str(value)
    # The shortest would be 2e+01 for 20.
    if value.is_integer() and abs(value) < 1e6:
        return str(int(value))
    # Six digits are not enough for every float32, and nine print 0.35 as 0.349999994.
    for digits in range(1, 9):
        text = f"{value:.{digits}g}"
        if struct.pack("f", float(text)) == struct.pack("f", value):
            return text
    return f"{value:.9g}"


def read_options(message: Any, piece: Piece, options: Sequence[Option]) -> None:
    """Sets the fields that the words name.

    Raises:
      ConfigError: for a word that is no option, or is one again.
    """
    by_key = {option.key: option for option in options}
    seen = set()
    for word in split(piece, "_") if piece[0] else ():
        # An "x" between digits is a size and an "e" before a sign an exponent; elsewhere both are
        # letters.
        match = re.fullmatch(r"([a-z]*)((?:[\d.,-]|e[-+]|(?<=\d)x(?=\d))*)", word[0])
        option = by_key.get(match[1]) if match else None
        if match is None or option is None or (option.value is None) != bool(match[2]):
            fail(word, f"the options here are {', '.join(_shown(o) for o in options)}")
        if option.field in seen:
            fail(word, "is given a second time")
        seen.add(option.field)
        _set(message, option, (match[2], word[1] + match.start(2)))


def _shown(option: Option) -> str:
    return f"{option.key}NUMBER" if option.value is None else option.key


def _set(message: Any, option: Option, numbers: Piece) -> None:
    field = message.DESCRIPTOR.fields_by_name[option.field]
    if field.message_type is not None:
        _set_size(getattr(message, option.field), numbers)
        return
    whole = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
    try:
        values = [(int if whole else float)(text) for text in numbers[0].split(",") if text]
        if option.value is not None:
            setattr(message, option.field, option.value)
        elif hasattr(getattr(message, option.field), "append"):
            getattr(message, option.field)[:] = values
        else:
            (value,) = values
            setattr(message, option.field, value)
    except ValueError:
        fail(numbers, f"{'a whole number' if whole else 'a number'} is needed")


def _set_size(size: architecture_pb2.InputSize, numbers: Piece) -> None:
    """Sets a size from a side, "320", or from height and width, "256x448"."""
    sides = re.fullmatch(r"(\d{1,9})(?:x(\d{1,9}))?", numbers[0])
    if sides is None:
        fail(numbers, "a side in pixels, or HEIGHTxWIDTH, is needed")
    size.height, size.width = int(sides[1]), int(sides[2] or sides[1])

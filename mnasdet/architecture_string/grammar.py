"""The grammar of the architecture string: parts and blocks with options, and pieces of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from mnasdet.errors import ConfigError, shown

# A piece of the string and the place where it starts, for the messages.
Piece = tuple[str, int]


@dataclass(frozen=True)
class Option:
    """A word after a kind.

    Attributes:
      key: its letters.
      field: that its number sets; of a repeated field, its numbers.
      value: what the key sets that has no number.
      always: written also where it says what is usual.
    """

    key: str
    field: str
    value: int | None = None
    always: bool = False


@dataclass(frozen=True)
class Kind:
    """A part or a block.

    Attributes:
      path: of its message in an Architecture; of a block, empty.
      options: in their order.
      usual: text proto of what holds where no option says otherwise.
      needs: a field and the value that it has in messages of this kind.
      blocks: how the blocks after the options are written and read.
      anchors: text proto of a pyramid's usual anchor generator.
    """

    path: str
    options: tuple[Option, ...]
    usual: str = ""
    needs: tuple[str, int] | None = None
    blocks: Blocks | None = None
    anchors: str = ""


@dataclass(frozen=True)
class Blocks:
    """How blocks are written and read.

    Attributes:
      start: pattern of what a block begins with.
      write: the blocks of a message.
      read: adds one block to a message.
    """

    start: str
    write: Callable[[Any], list[str]]
    read: Callable[[Any, Piece], None]


def options(numbers: str, **flags: tuple[str, int]) -> tuple[Option, ...]:
    """Returns options from words such as "key=field".

    Args:
      numbers: the options with numbers; "!" after what is always written.
      flags: the options without, by their keys, with a field and the value that they set.
    """
    words = [word.partition("=") for word in numbers.split()]
    return (
        *(Option(key, field.rstrip("!"), always=field.endswith("!")) for key, _, field in words),
        *(Option(key, field, value) for key, (field, value) in flags.items()),
    )


def split(piece: Piece, separator: str) -> Iterator[Piece]:
    """Yields the pieces between the places that a pattern matches."""
    text, start = piece
    end = 0
    for match in re.finditer(separator, text):
        yield text[end : match.start()], start + end
        end = match.end()
    yield text[end:], start + end


def fail(piece: Piece, allowed: str) -> NoReturn:
    """Raises a ConfigError that names a piece and its place, and what is allowed there."""
    text, start = piece
    raise ConfigError(f'architecture string, character {start + 1}: "{shown(text)}": {allowed}')

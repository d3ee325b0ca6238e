"""Where in a text proto a field is."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Mapping
from itertools import zip_longest
from typing import TypeVar

from mnasdet.text_faults.tokens import is_field, tokens

# A field and its place among those of its name, from the root on.
FieldPath = tuple[tuple[str, int], ...]

_Place = TypeVar("_Place")


def line_of(path: str, text: str) -> int | None:
    """Returns the line of a field, as `place_of` finds it."""
    return place_of(path, lines(text))


def place_of(path: str, places: Mapping[FieldPath, _Place]) -> _Place | None:
    """Returns the place of a field such as "model.ssd.num_classes" or "search_config.seed".

    A field that is not set has the place of the message that it belongs to, and no place where that
    is the whole text.

    Args:
      path: with "[i]" after the name of a repeated field; without it the first one is meant.
      places: those of all fields that are set.
    """
    wanted = tuple(
        (match[1], int(match[2] or 0)) for match in re.finditer(r"([^.\[\]]+)(?:\[(\d+)\])?", path)
    )
    while wanted and wanted not in places:
        wanted = wanted[:-1]
    return places.get(wanted)


# A config with many problems asks for many lines of one text.
@functools.lru_cache(maxsize=1)
def lines(text: str) -> Mapping[FieldPath, int]:
    """Returns the line of every field that is set in a text proto."""
    found: dict[FieldPath, int] = {}
    counts: Counter[FieldPath] = Counter()
    parents: list[FieldPath] = [()]
    field: FieldPath = ()
    read = list(tokens(text))
    for token, following in zip_longest(read, read[1:]):
        if token.text in ("{", "<"):
            parents.append(field)
        elif token.text in ("}", ">") and len(parents) > 1:
            field = parents.pop()
        elif is_field(token, following):
            unnumbered = (*parents[-1], (token.text, 0))
            field = (*parents[-1], (token.text, counts[unnumbered]))
            counts[unnumbered] += 1
            found[field] = token.line
    return found

"""Where in a text proto a field is."""

from __future__ import annotations

import functools
import re
from collections import Counter
from itertools import zip_longest

from mnasdet.text_faults.tokens import is_field, tokens

# A field and its place among those of its name, from the root on.
_Path = tuple[tuple[str, int], ...]


def line_of(path: str, text: str) -> int | None:
    """Returns the line of a field such as "model.ssd.num_classes" or "search_config.seed".

    A field that is not set has the line of the message that it belongs to, and no line where that
    is the whole text.

    Args:
      path: with "[i]" after the name of a repeated field; without it the first one is meant.
    """
    lines = _lines(text)
    wanted = tuple(
        (match[1], int(match[2] or 0)) for match in re.finditer(r"([^.\[\]]+)(?:\[(\d+)\])?", path)
    )
    while wanted and wanted not in lines:
        wanted = wanted[:-1]
    return lines.get(wanted)


# A config with many problems asks for many lines of one text.
@functools.lru_cache(maxsize=1)
def _lines(text: str) -> dict[_Path, int]:
    """Returns the line of every field that is set."""
    lines: dict[_Path, int] = {}
    counts: Counter[_Path] = Counter()
    parents: list[_Path] = [()]
    field: _Path = ()
    found = list(tokens(text))
    for token, following in zip_longest(found, found[1:]):
        if token.text in ("{", "<"):
            parents.append(field)
        elif token.text in ("}", ">") and len(parents) > 1:
            field = parents.pop()
        elif is_field(token, following):
            unnumbered = (*parents[-1], (token.text, 0))
            field = (*parents[-1], (token.text, counts[unnumbered]))
            counts[unnumbered] += 1
            lines[field] = token.line
    return lines

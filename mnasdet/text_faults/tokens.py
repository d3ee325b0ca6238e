"""Splits the text of a text proto into tokens, also where the text is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

# A string ends on its own line. One that does not is a token of its own kind, which takes the rest
# of the line: the lines below it then still have the fields that their author sees there.
_TOKEN = re.compile(
    r"""(?P<skip>\#[^\n]*|\s+|[,;])
      | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
      | (?P<open_string>["'][^\n]*)
      | (?P<mark>[{}<>\[\]:])
      | (?P<word>[^\s{}<>\[\]:,;\#"']+)""",
    re.VERBOSE,
)


class Token(NamedTuple):
    """A piece of the text.

    Attributes:
      kind: "string", "open_string" (without its ending quote), "mark" (a bracket or a colon) or
        "word" (names and numbers).
      start: its offset in the text.
      line, column: from 1, as editors count.
    """

    kind: str
    text: str
    start: int
    line: int
    column: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def tokens(text: str) -> Iterator[Token]:
    """Yields the tokens in order, without comments, spaces, commas and semicolons."""
    line, line_start, counted = 1, 0, 0
    for match in _TOKEN.finditer(text):
        # Counted on from the last token: counting from the start would be quadratic.
        line += text.count("\n", counted, match.start())
        line_start = text.rfind("\n", counted, match.start()) + 1 or line_start
        counted = match.start()
        if match.lastgroup == "skip":
            continue
        kind = match.lastgroup or ""
        yield Token(kind, match[0], counted, line, counted - line_start + 1)


def is_field(token: Token, following: Token | None) -> bool:
    """Tells whether a token is a field's name, by the token that follows it."""
    return token.kind == "word" and following is not None and following.text in (":", "{", "<")

"""Errors that the user can mend. The commands print them as one line and exit with status 1."""

from __future__ import annotations

import contextlib
import difflib
import re
import reprlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from mnasdet import passwords

# Characters of a line; no message of ours is longer but by what it quotes.
_LONGEST_LINE = 1000

# Characters of a value in a message.
_SHOWN_CHARACTERS = 80

# Characters of a name that are compared with the allowed ones, which are far shorter.
_COMPARED_CHARACTERS = 100


class UserError(Exception):
    """Says where it went wrong, what was met, what is allowed and what to do.

    Its lines are short and printable, whatever they quote of a damaged file. A password in a URL is
    masked at once, so that no line, log or stored trial gets it.
    """

    def __init__(self, message: str):
        super().__init__("\n".join(map(one_line, passwords.masked(message).split("\n"))))


class ConfigError(UserError):
    """A pipeline config, an architecture or a flag that cannot be used."""


class DataError(UserError):
    """A record, an image, an annotation or a label map that cannot be used."""


class CheckpointError(UserError):
    """A checkpoint that is missing or does not fit the model."""


class LayerError(UserError):
    """An argument or a tensor that a layer of `mnasdet.keras` cannot take."""


class Terminated(KeyboardInterrupt):
    """SIGTERM asked this process to end. Unlike Ctrl-C it gives no time to finish anything."""


def one_line(text: str) -> str:
    """Returns a text as one line that every terminal can print.

    What cannot be printed is escaped. Of a long line the middle is left out: a message starts with
    what was met and ends with what is allowed.
    """
    if not text.isprintable():
        text = "".join(
            character if character.isprintable() else repr(character)[1:-1] for character in text
        )
    if len(text) <= _LONGEST_LINE:
        return text
    return f"{text[: _LONGEST_LINE // 2]} ... {text[-_LONGEST_LINE // 2 + 5 :]}"


def shown(value: Any) -> str:
    """Returns a value as messages show it: one short line that every terminal can print."""
    if isinstance(value, str):
        value = value[:_LONGEST_LINE]
    text = value if isinstance(value, str) and value.isprintable() else _Shortened().repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


class _Shortened(reprlib.Repr):
    """Representations of bounded length, made in bounded time.

    Aliases in YAML make lists in lists of which the whole text would be gigabytes, and Python
    refuses to write integers of more than 4300 digits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxlist = self.maxtuple = self.maxset = self.maxdict = 12
        self.maxstring = self.maxother = _LONGEST_LINE

    def repr_int(self, value: int, level: int) -> str:
        if value.bit_length() <= _LONGEST_LINE:
            return repr(value)
        return f"an integer of {value.bit_length()} bits"


# Errors of other packages that come of what the machine or a file is like, by module. They are
# looked up among the modules that are loaded: one that is not has raised nothing.
_FOREIGN = (
    ("tensorflow.python.framework.errors_impl", "OpError"),
    ("google.protobuf.message", "Error"),
    ("absl.flags", "Error"),
    ("lzma", "LZMAError"),
    ("zlib", "error"),
    ("zipfile", "BadZipFile"),
)


# The part of an error in which TensorFlow tells its authors the node and the graph.
_INTERNAL = re.compile(r"^\{\{.*?\}\} ?|;? *\[Op:\w*\].*$")

# The lines of such an error that come before what happened.
_HEADING = re.compile(r"Graph execution error|Detected at node|File \"|<stack traces")


def foreign_kinds() -> tuple[type[BaseException], ...]:
    """Returns the errors that are neither ours nor a bug of ours, for an `except`.

    OSError is none of them: it names its file, and Python's own text says what to do.
    """
    found = (getattr(sys.modules.get(module), name, None) for module, name in _FOREIGN)
    kinds = [kind for kind in found if kind is not None]
    return (RecursionError, MemoryError, UnicodeError, OverflowError, EOFError, *kinds)


def foreign_line(error: BaseException) -> str:
    """Returns one line about an error of `foreign_kinds`."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not _HEADING.match(line)] or lines
    first = _INTERNAL.sub("", lines[0]) if lines else ""
    if isinstance(error, RecursionError):
        return "something in the input is nested too deep"
    if isinstance(error, MemoryError):
        return f"out of memory{first and f': {first}'}; a smaller batch or image may help"
    if isinstance(error, UnicodeError):
        return f"a text has characters that its encoding does not have: {first}"
    if isinstance(error, OverflowError):
        return f"a number is out of range: {first}"
    return one_line(first or type(error).__name__)


@contextlib.contextmanager
def naming(work: str) -> Iterator[None]:
    """Turns the errors of other packages into a UserError that says what could not be done."""
    try:
        yield
    except foreign_kinds() as error:
        raise UserError(f"{work}: {foreign_line(error)}") from None


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Returns the allowed names for a message, nearest first: "one of a, b, c"."""
    names = list(allowed)
    name = name[:_COMPARED_CHARACTERS]
    # The cutoff of 0 ranks all names; the default one drops those that are not alike at all.
    close = difflib.get_close_matches(name, names, n=len(names), cutoff=0.0)
    return "one of " + ", ".join(close + [other for other in names if other not in close])

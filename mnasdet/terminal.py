"""The terminal of a command and of its worker processes: plain lines, and streams that outlive
their readers and show all text as text."""

from __future__ import annotations

import io
import logging as python_logging
import os
import re
import sys
from pathlib import Path

from absl import logging

import mnasdet

# The package and, in the source tree, the commands beside it.
_OUR_FOLDERS = (Path(mnasdet.__file__).parent, Path(mnasdet.__file__).parents[1] / "scripts")

# What makes a terminal do something other than show letters: control characters but tab and line
# feed, such as those that begin a colour, a title or a movement of the cursor; the marks that turn
# the order of letters around; and halves of surrogate pairs, which no encoding has.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def set_up() -> None:
    """Prepares standard output, standard error and the log; called before any output."""
    sys.stdout = _outliving(sys.stdout)
    sys.stderr = _outliving(sys.stderr)
    handler = logging.get_absl_handler()
    handler.python_handler.setStream(sys.stderr)
    handler.setFormatter(_PlainFormatter())
    handler.addFilter(_is_shown)
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)


def printable(text: str) -> str:
    """Returns a text with escapes, such as \\x1b, for what would make a terminal do something."""
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


def one_line(text: str) -> str:
    """Returns a text for a cell of a table: printable, and with single blanks for line ends."""
    return printable(" ".join(text.split()))


class _PlainFormatter(python_logging.Formatter):
    """Leaves out date, process and source line, which tell a user nothing."""

    def format(self, record: python_logging.LogRecord) -> str:
        name = "" if record.levelno <= python_logging.INFO else f"{record.levelname.lower()}: "
        return name + super().format(record)


def _is_shown(record: python_logging.LogRecord) -> bool:
    """Returns whether a record is ours or at least a warning.

    TensorFlow logs to the same logger, such as "Sharding callback duration" at every checkpoint.
    """
    ours = any(folder in Path(record.pathname).parents for folder in _OUR_FOLDERS)
    return ours or record.levelno > python_logging.INFO


class _OutlivingFile(io.FileIO):
    """A file whose reader may go, as that of `| head`: the rest is thrown away."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            # C++ code and child processes write to the same descriptor.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


class _PrintableText(io.TextIOWrapper):
    """A stream that shows all text as text, wherever it comes from.

    Names, notes and errors of trials, classes and files are of others. Escaped here, they need not
    be thought of by everybody who prints.
    """

    # Whether the line so far may be written over: it is empty, or a progress bar.
    _is_rewritable = True

    def write(self, text: str) -> int:
        # A bar is drawn by texts that begin with a carriage return. After other text on the same
        # line it would hide that.
        returns = self._is_rewritable and text.startswith("\r")
        super().write("\r" * returns + printable(text[returns:]))
        if "\n" in text:
            self._is_rewritable = text.endswith("\n")
        elif text and not returns:
            self._is_rewritable = False
        return len(text)


def _outliving(stream):
    """Returns a stream that writes where `stream` does and never raises BrokenPipeError.

    Without it the first line after `head` has ended would end a search of hours.
    """
    if stream is None:  # Closed by the shell, as with >&-.
        return None
    stream.flush()
    return _PrintableText(
        io.BufferedWriter(_OutlivingFile(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
    )

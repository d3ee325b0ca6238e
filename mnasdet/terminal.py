"""The terminal of a command and of its worker processes: plain lines, and streams that outlive
their readers and show all text as text."""

from __future__ import annotations

import contextlib
import io
import logging as python_logging
import os
import re
import sys
from pathlib import Path

from absl import logging

import mnasdet
from mnasdet import passwords

# The package and, in the source tree, the commands beside it.
_OUR_FOLDERS = (Path(mnasdet.__file__).parent, Path(mnasdet.__file__).parents[1] / "scripts")

# Characters that make a terminal do something other than show letters. They are control characters
# but tab and line feed, such as those that begin a colour, a title or a movement of the cursor; the
# marks that turn the order of letters around; and halves of surrogate pairs, which no encoding has.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def set_up() -> None:
    """Prepares standard output, standard error and the log; called before any output."""
    _open_closed_descriptors()
    sys.stdout = _outliving(sys.stdout, _PrintableText)
    sys.stderr = _outliving(sys.stderr, _MaskedText)
    handler = logging.get_absl_handler()
    # Not setStream(), which flushes the stream before, where there may be none.
    handler.python_handler.stream = sys.stderr
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


def _open_closed_descriptors() -> None:
    """Opens the null device for the standard streams that the shell closed, as with 2>&-.

    Otherwise the next file to be opened, a database maybe, gets what TensorFlow tells the terminal.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # The lowest number that is free: this one.


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
    """A file that goes on when nothing can be written any more: the rest is thrown away.

    Attributes:
      error: why; None for a reader that went, as that of `| head`, which is no error.
    """

    error: OSError | None = None

    def write(self, data) -> int:
        try:
            return super().write(data)
        except BlockingIOError:
            raise
        except OSError as error:
            # C++ code and child processes write to the same descriptor.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            self.error = None if isinstance(error, BrokenPipeError) else error
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


class _MaskedText(_PrintableText):
    """Standard error: errors, logs and tracebacks of all packages, without passwords."""

    def write(self, text: str) -> int:
        super().write(passwords.masked(text))
        return len(text)


def check_output() -> None:
    """Raises OSError if standard output has not got all that was printed: a full disk.

    The end of a command is early enough: its work of hours should not end with a line of output.
    """
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    error = getattr(raw, "error", None)
    if error is not None:
        raise OSError(error.errno, error.strerror, "standard output")


def _outliving(stream, kind: type[_PrintableText]):
    """Returns a stream that writes where `stream` does and never raises an OSError.

    Without it the first line after `head` has ended would end a search of hours. A character that
    the terminal's encoding does not have is printed as an escape.
    """
    if stream is None:  # Closed by the shell, as with >&-.
        return open(os.devnull, "w")
    with contextlib.suppress(OSError):
        stream.flush()
    return kind(
        io.BufferedWriter(_OutlivingFile(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace" if stream.errors == "strict" else stream.errors,
        # Python's -u, and PYTHONUNBUFFERED in containers, set write_through instead.
        line_buffering=stream.line_buffering or stream.write_through,
    )

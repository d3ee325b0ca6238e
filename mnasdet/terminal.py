"""The terminal of a command and of its worker processes: plain lines, and streams that outlive
their readers."""

from __future__ import annotations

import io
import logging as python_logging
import os
import sys
from pathlib import Path

from absl import logging

import mnasdet

# The package and, in the source tree, the commands beside it.
_OUR_FOLDERS = (Path(mnasdet.__file__).parent, Path(mnasdet.__file__).parents[1] / "scripts")


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


def _outliving(stream):
    """Returns a stream that writes where `stream` does and never raises BrokenPipeError.

    Without it the first line after `head` has ended would end a search of hours.
    """
    if stream is None:  # Closed by the shell, as with >&-.
        return None
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_OutlivingFile(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
    )

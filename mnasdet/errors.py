"""Errors that the user can mend. The commands print them as one line and exit with status 1."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Says where it went wrong, what was met, what is allowed and what to do."""


class ConfigError(UserError):
    """A pipeline config, an architecture or a flag that cannot be used."""


class DataError(UserError):
    """A record, an image, an annotation or a label map that cannot be used."""


class CheckpointError(UserError):
    """A checkpoint that is missing or does not fit the model."""


class Terminated(KeyboardInterrupt):
    """SIGTERM asked this process to end. Unlike Ctrl-C it gives no time to finish anything."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The allowed names for a message, nearest first: "one of a, b, c"."""
    names = list(allowed)
    close = difflib.get_close_matches(name, names, n=len(names), cutoff=0.0)
    return "one of " + ", ".join(close + [other for other in names if other not in close])

"""Checks that the files are there that a config names."""

from __future__ import annotations

import difflib
import os
import re
import urllib.parse
from collections.abc import Sequence

from mnasdet import files
from mnasdet.config_checks.section import Section

TO_BE_CONFIGURED = "PATH_TO_BE_CONFIGURED"


def check_exists(section: Section, name: str, patterns: Sequence[str], remedy: str = "") -> bool:
    """Returns whether a local file is there; what another file system holds shows on opening.

    Args:
      patterns: of which one has to match; the first is the field's value.
      remedy: what to do about it, for the message.
    """
    path = patterns[0]
    remedy = remedy and f"; {remedy}"
    if TO_BE_CONFIGURED in path:
        section.report(name, f'is "{path}"{remedy or "; name the file or remove the field"}')
        return False
    if path.startswith("file:"):
        plain = re.sub("^file:/*", "/", urllib.parse.unquote(path))
        section.report(name, f'is "{path}"; a path is needed, such as "{plain}"')
        return False
    if "://" in path:
        return False
    if not any(map(files.matching, patterns)):
        section.report(name, f'is "{path}", which does not exist{remedy}{_near_miss(path)}')
        return False
    return True


def _near_miss(path: str) -> str:
    """Returns the file that was probably meant, for a message; empty where there is none."""
    if path != path.strip():
        return "; a space is at its start or end"
    # A path from the address bar of a file manager has %20 for a space.
    plain = urllib.parse.unquote(path)
    if plain != path and os.path.exists(plain):
        return f'; did you mean "{plain}"?'
    folder, base = os.path.split(path)
    if not os.path.isdir(folder or "."):
        return f'; there is no folder "{folder}" either'
    close = difflib.get_close_matches(base, os.listdir(folder or "."), n=1)
    return f'; did you mean "{os.path.join(folder, close[0])}"?' if close else ""

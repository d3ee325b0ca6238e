"""Keeps passwords of databases out of everything that is printed or written."""

from __future__ import annotations

import re

_MASK = "***"

# Where a user may begin: after a scheme. PostgreSQL's may have lost its
# colon or its slashes.
_SCHEME = r"\bpostgres[\w+]*(?::/{0,3}|//)(?!/)"
_DATABASE = rf"{_SCHEME}[^/\s:@\"'\[]*:"
_ANY = r"\b[a-z][\w+.-]*://[^/\s:@\"'\[]*:"

# The word that our own messages and help texts have in a password's place.
_NAMED = r"(?!PASSWORD\b)"

# A longer one is no password: it makes the search for its end quick in any text.
_MOST = "0,500"

# One after the other: a database's password in a quoted string may have spaces; one elsewhere ends
# at the first. Of several @ the last ends it. Other URLs, such as http://host:80/a@b, escape it.
# Where the end is cut off there is none, but a port looks alike: it is all digits. In the query of
# a URL and in libpq's own settings it has a name.
_RULES = (
    re.compile(rf"(\"{_DATABASE}){_NAMED}(?:\\.|[^\"\\\n]){{{_MOST}}}@"),
    re.compile(rf"({_DATABASE}){_NAMED}\S{{{_MOST}}}@"),
    re.compile(rf"({_ANY}){_NAMED}[^\s/?#@]{{{_MOST}}}@"),
    re.compile(rf"({_DATABASE})(?!PASSWORD\b|\d+(?!\w)|\*{{3}}@)[^\s\"'@/]+"),
    re.compile(r"((?:password|passwd)=)(?!\*{3})[^&\s\"']+"),
)


def masked(text: str) -> str:
    """Returns a text with *** in the place of the passwords of all URLs in it."""
    if "@" not in text and "passw" not in text and "postgres" not in text:
        return text
    for rule in _RULES:
        text = rule.sub(lambda found: f"{found[1]}{_MASK}{'@' * found[0].endswith('@')}", text)
    return text


def removed(url: str) -> str:
    """Returns a database URL without its password: libpq then looks into ~/.pgpass for it."""
    if "://" not in url or url.startswith("sqlite"):
        return url  # A file.
    # A password that is not escaped may have the signs that end a host.
    url = re.sub(r"(//[^/\s:@]*):.*@", r"\1@", url, flags=re.DOTALL)
    start, mark, query = url.partition("?")
    kept = [part for part in query.split("&") if part and "passw" not in part.partition("=")[0]]
    return start + (mark + "&".join(kept) if kept else "")

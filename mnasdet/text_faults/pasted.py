"""Characters that come into a text proto by copying it from somewhere else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from mnasdet.text_faults.tokens import Token

# Curly, low, angled and corner quotes, and primes.
_QUOTES = "".join(map(chr, [*range(0x2018, 0x2020), 0xAB, 0xBB, 0x2039, 0x203A, 0x2032, 0x2033]))
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212"
_INVISIBLE = "\ufeff\u200b\u200c\u200d\u200e\u200f\u2060\u00ad\u202a\u202c"
_ENTITY = re.compile(r"&(?:[a-z]+|#x?[0-9a-f]+)\b;?", re.IGNORECASE)

# A placeholder of examples for lines that its author left out.
_LEFT_OUT = re.compile(r"^(?:\.{2,}|\u2026)$")

# Fields that name files or folders.
_PATH_FIELDS = {"input_path", "label_map_path", "fine_tune_checkpoint", "path", "benchmark_binary"}

_DRIVE = re.compile(r"[A-Za-z]:\\(?!\\)")
# Octal escapes from \200 on are how protobuf itself writes letters beyond ASCII, and those up to
# \037 how `config.to_text` writes line breaks.
_ESCAPE = re.compile(r"\\(?![\\\"']|[2-3][0-7][0-7]|0[0-3][0-7])")


def whole_fault(found: Sequence[Token]) -> str:
    """Returns what another kind of text a file has in place of a text proto; empty for none."""
    start = "".join(token.text for token in found[:3]).lower()
    if start.startswith(("<!doctype", "<html", "<?xml")):
        return "this is a web page or XML; on GitHub, download the file with the button Raw"
    if start.startswith(("{", "[")):
        return "this is JSON or YAML; a text proto has fields, such as name: 1, at the start"
    return ""


def character_fault(token: Token) -> str:
    """Returns what is wrong with a token outside of strings; empty where nothing is."""
    text = token.text
    if token.kind == "open_string":
        return _open_string_fault(text)
    if _LEFT_OUT.match(text):
        return f'"{text}" stands for lines that were left out; write them or remove it'
    if text.startswith("```"):
        return "``` belongs to Markdown; remove it"
    if text.startswith(("//", "/*")):
        return f'"{text[:2]}" starts no comment here; a comment starts with #'
    if entity := _ENTITY.match(text):
        return f'"{entity[0]}" is written for a web page; write the character itself'
    for character in text:
        if fault := _strange_character(character):
            return fault
    return ""


def _open_string_fault(text: str) -> str:
    quote = text[0]
    for character in text[1:]:
        if character in _QUOTES:
            return f"the string starts with {quote} and ends with {_named(character)}; use {quote}"
    if entity := _ENTITY.search(text):
        return f'the string has no ending {quote}, but "{entity[0]}", as web pages are written'
    return f"the string has no ending {quote}"


def _strange_character(character: str) -> str:
    if character.isascii():
        return ""
    name = _named(character)
    if character in _QUOTES:
        return f'{name} is a typographic quote; use "'
    if character in _DASHES:
        return f"{name} is a typographic dash; use -"
    if character in _INVISIBLE:
        return f"{name} is there, which editors do not show; remove it"
    plain = unicodedata.normalize("NFKC", character)
    if plain.isascii() and len(plain) == 1 and plain.isprintable():
        return f"{name} is a wide or styled character; use {plain}"
    return ""


def _named(character: str) -> str:
    """Returns the character with its number, since some look like others or like nothing."""
    shown = character if character.isprintable() else ""
    return f"{shown} (U+{ord(character):04X})".strip()


def path_fault(field: str, string: str) -> str:
    """Returns what is wrong with the string of a field where it is a path of Windows.

    A backslash starts an escape in a text proto: "C:\\new" has a line break in it, and would be
    looked for as such.

    Args:
      string: with its quotes, as it stands in the text.
    """
    content = string[1:].rstrip(string[:1])
    is_path = field in _PATH_FIELDS and _ESCAPE.search(content.replace("\\\\", ""))
    if not is_path and not _DRIVE.match(content):
        return ""
    plain = re.sub(r"\\+", "/", content)
    return (
        f'{field} has single backslashes, which start escapes here; write "{plain}" or double each'
    )


def path_faults(tokens: Iterable[Token]) -> list[tuple[Token, str]]:
    """Returns the strings that are paths of Windows with single backslashes, and what to do."""
    faults, field = [], ""
    for token in tokens:
        if token.kind == "word":
            field = token.text
        elif token.kind in ("string", "open_string") and (fault := path_fault(field, token.text)):
            faults.append((token, fault))
    return faults

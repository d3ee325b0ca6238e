"""Reads text files of any common encoding."""

from __future__ import annotations

import codecs
import difflib
import math
import os
import re
from pathlib import Path

from mnasdet import remote
from mnasdet.errors import shown

# A file with one of these in front says its encoding. UTF-32's marks begin as UTF-16's do.
_MARKS = [
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]
_XML_DECLARATION = re.compile(rb"\s*<\?xml[^>]*?\sencoding\s*=\s*[\"']([^\"'>]*)[\"']")
_WEB_PAGE = re.compile(r"\s*<(!doctype\s+html|html)\b", re.IGNORECASE)
# Files that declare the first of a pair hold characters of the second, its superset.
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc_kr": "cp949"}


def read_text(
    path: str | os.PathLike, error: type[Exception], kind: str, max_bytes: float = math.inf
) -> str:
    """Reads a text file in the encoding that its byte order mark or its XML declaration names.

    Without either the encoding is UTF-8.

    Args:
      error: raised with one line when the file cannot be read.
      kind: what the file should be, for that line: "text proto".
      max_bytes: a larger file is refused before it is read.
    """
    address, path = remote.url(path), Path(path)
    try:
        if not address and path.stat().st_size > max_bytes:
            raise ValueError(
                f"has {path.stat().st_size:,} bytes; a {kind} has at most {max_bytes:,} here"
            )
        text = decode(remote.read(address) if address else path.read_bytes(), kind)
    except FileNotFoundError:
        similar = "" if address else similar_file(path)
        raise error(f"{address or path}: no such file{similar}") from None
    except IsADirectoryError:
        raise error(f"{path}: is a directory; name a {kind.replace(' ', '-')} file in it") from None
    except OSError as problem:
        raise error(f"{path}: {problem.strerror}") from None
    except ValueError as problem:
        raise error(f"{path}: {problem}") from None
    if not text.strip():
        raise error(f"{path}: is empty")
    if _WEB_PAGE.match(text):
        raise error(f"{path}: is a web page, not a {kind}; download the file itself (GitHub: Raw)")
    return text


def decode(content: bytes, kind: str) -> str:
    """Returns the text of a file's bytes, as `read_text` does.

    Raises:
      ValueError: when the bytes are no text, or not in the encoding that they should have.
    """
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), "")
    if not marked and b"\0" in content:
        raise ValueError(f"is a binary file; a {kind} is needed")
    encoding = marked or _declared_encoding(content)
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        byte = f"byte {content[problem.start]:#04x} in line {line}"
        name = encoding.upper()
        remedy = "save it as UTF-8" if encoding == "utf-8" else "declare its encoding or save it so"
        raise ValueError(f"is not {name} ({byte}): {remedy}") from None
    except UnicodeError:  # Codecs for other uses, such as "idna", raise it.
        raise ValueError(f"is not {encoding.upper()}: save it as UTF-8") from None


def _declared_encoding(content: bytes) -> str:
    declaration = _XML_DECLARATION.match(content)
    if not declaration:
        return "utf-8"
    declared = declaration[1].decode("ascii", "replace")
    try:
        codec = codecs.lookup(declared)
        "".encode(codec.name)  # A codec may be one of bytes, such as "hex".
    except (LookupError, ValueError):
        name = shown(declared)
        raise ValueError(f"declares the unknown encoding {name!r}: save it as UTF-8") from None
    # The declaration was read byte by byte, so it cannot be of two bytes a character. Writers of
    # UTF-16 strings leave such declarations in UTF-8 files.
    if codec.name.startswith(("utf-16", "utf-32")):
        return "utf-8"
    return _SUPERSETS.get(codec.name, codec.name)


def similar_file(path: Path) -> str:
    """Returns what a message about a missing file adds: the file that was probably meant."""
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent} either"
    names = [other.name for other in path.parent.iterdir() if other.is_file()]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""

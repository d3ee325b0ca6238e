"""Seeded damage to files, for tests of what their readers make of it."""

import copy
import os
import random
import re
import time

from mnasdet.errors import UserError

# Text that people, programs and transfers leave in a file, beside single characters.
PIECES = [
    "{", "}", "[", "]", "<", ">", '"', "'", "\\", "\n", "\r", "\t", "\0", "\x1b[2J", ":", ",", "#",
    "\u201c", "\u200b", "\ufeff", "\u2028", "\x85", "&lol;", "<!--", "<![CDATA[", "null", "x: 1",
]  # fmt: skip

NUMBERS = [
    "0", "-0.0", "-1", "1", "255", "2147483647", "2147483648", "-2147483648", "4294967296",
    "9223372036854775807", "9223372036854775808", "18446744073709551616", "1e-320", "1e38", "1e39",
    "1e308", "-1e308", "1e400", "nan", "NaN", "-NaN", "inf", "Infinity", "-Infinity", "null",
    "true", "false", '""', "''", "0x7fffffff", "1_000", "1,5", "\u0663", "9" * 400, "9" * 5000,
    "0." + "1" * 5000, "1" + "0" * 308 + ".5", "-", ".", "+", "1e", "[[[[1]]]]", "{}", "x" * 20_000,
]  # fmt: skip

VALUES = [
    0, -1, 1, 0.5, 255, 2**31 - 1, 2**31, -(2**31), 2**32, 2**63 - 1, 2**63, 2**64, 10**400, 1e-320,
    1e38, 1e39, 1e308, -1e308, float("nan"), float("inf"), -float("inf"), None, True, False, "",
    " ", "7", "7.0", "nan", "x" * 20_000, "\ud800", "a\nb\x1b[2J", "../../etc/passwd", "/dev/zero",
    [], {}, [[]], [[[[[1]]]]], [1, 2, 3, 4], [0, 0, 1, 1], {"a": {"b": [1]}}, [None] * 4,
]  # fmt: skip

ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-be", "utf-32", "latin-1", "cp1252", "gbk", "utf-7"]

# Paragraphs of this length in a message help nobody.
_LONGEST_LINE = 1500

# Seconds of CPU for one small input, which takes milliseconds.
_MOST_SECONDS = 2


def generators(name, count):
    """Yields a seed and its random numbers, `count` times.

    MNASDET_SEEDS=0:5000 asks for these in place of the few that are in the suite.
    """
    first, _, end = os.environ.get("MNASDET_SEEDS", f"0:{count}").partition(":")
    for seed in range(int(first), int(end)):
        yield seed, random.Random(f"{name} {seed}")


def outcome(function, *, listed=False):
    """Calls a function and returns its result or its UserError, which is one line.

    Args:
      listed: several problems may have a line each, below the first.
    """
    start = time.process_time()
    try:
        result = function()
    except UserError as error:
        check_lines(str(error), listed)
        result = error
    assert time.process_time() - start < _MOST_SECONDS
    return result


def check_lines(message, listed=False):
    """Checks that a message can be read on a terminal."""
    lines = message.split("\n") if listed else [message]
    assert len(lines) <= 60, lines[0]
    for line in lines:
        assert line.isprintable(), repr(line)
        assert len(line) <= _LONGEST_LINE, line


def damaged_bytes(content, rng):
    """The bytes with one to three places damaged."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(content) + 1)
        end = min(len(content), start + rng.choice([0, 1, 1, 2, 8, 40, 1000]))
        there = content[start:end]
        other = rng.randrange(len(content) + 1)
        kind = rng.randrange(8)
        if kind == 0:
            there = b""
        elif kind == 1:
            there = bytes(byte ^ (1 << rng.randrange(8)) for byte in there)
        elif kind == 2:
            there = there + there
        elif kind == 3:
            there = rng.randbytes(rng.choice([1, 1, 4, 40]))
        elif kind == 4:
            there = rng.choice(PIECES).encode()
        elif kind == 5:
            there = there + content[other : other + rng.choice([1, 8, 100])]
        elif kind == 6:
            there, end = b"", len(content)
        else:
            there = bytes([rng.choice([0, 0x7F, 0x80, 0xFF])]) * len(there)
        content = content[:start] + there + content[end:]
    return content


def damaged_text(text, rng):
    """The text with one to three values or pieces replaced, as bytes of some encoding."""
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(5)
        if kind == 0:
            text = _replaced(text, r"[-+]?\d+(?:\.\d+)?", NUMBERS, rng)
        elif kind == 1:
            text = _replaced(text, r"\"[^\"\n]*\"|'[^'\n]*'|>[^<>\n]+<", _strings(rng), rng)
        elif kind == 2:
            text = _replaced(text, r"\w+", _names(text), rng)
        elif kind == 3:
            lines = text.splitlines(keepends=True)
            start = rng.randrange(len(lines) or 1)
            end = min(len(lines), start + rng.choice([1, 1, 3, 10]))
            repeats = rng.choice([0, 2, 2, 50])
            text = "".join([*lines[:start], *lines[start:end] * repeats, *lines[end:]]) or text
        else:
            start = rng.randrange(len(text) + 1)
            end = min(len(text), start + rng.choice([0, 1, 1, 8, 40]))
            text = text[:start] + rng.choice([*PIECES, ""]) + text[end:]
    if rng.randrange(20) == 0:
        return text.encode(rng.choice(ENCODINGS), "replace")
    content = text.encode()
    return damaged_bytes(content, rng) if rng.randrange(5) == 0 else content


def damaged_json(content, rng):
    """A copy of nested lists and dictionaries with one to three values or keys damaged."""
    content = copy.deepcopy(content)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(content))
        if not places:
            return content
        holder, key = rng.choice(places)
        other, other_key = rng.choice(places)
        kind = rng.randrange(8)
        if kind == 0:
            del holder[key]
        elif kind == 1:
            holder[key] = [holder[key]]
        elif kind == 2:
            holder[key] = str(holder[key])
        elif kind == 3:
            holder[key] = copy.deepcopy(other[other_key])
        elif kind == 4 and isinstance(holder, list):
            holder += [copy.deepcopy(holder[key]) for _ in range(rng.choice([1, 2, 300]))]
        elif kind == 5 and isinstance(holder, dict):
            holder[rng.choice(["id", "name", "bbox", "angle", "segmentation", ""])] = holder[key]
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))
    return content


def _places(content):
    """Yields all (dictionary or list, key) of nested ones."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in list(items):
        yield content, key
        if isinstance(value, (dict, list)):
            yield from _places(value)


def _replaced(text, pattern, values, rng):
    found = list(re.finditer(pattern, text))
    if not found:
        return text
    match = rng.choice(found)
    return text[: match.start()] + rng.choice(values) + text[match.end() :]


def _strings(rng):
    quote = rng.choice("\"'")
    inside = [
        "",
        " ",
        "x" * 20_000,
        "\\ud800",
        "\\377",
        "\\x00",
        "a\x1b[2Jb",
        "C:\\new",
        "/dev/zero",
    ]
    return [*(quote + string + quote for string in inside), ">" + rng.choice(inside) + "<"]


def _names(text):
    return [*re.findall(r"\w+", text), "x" * 20_000]

"""Reads text protos, with errors that say where, what was met and what is allowed."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from typing import Any, TypeVar, cast

from absl import logging
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from mnasdet import passwords, text_files
from mnasdet.errors import ConfigError, UserError
from mnasdet.text_faults.faults import (
    MAX_TOLD,
    Fault,
    characters_faults,
    fields_faults,
    no_field,
    no_value,
)
from mnasdet.text_faults.pasted import path_faults, whole_fault
from mnasdet.text_faults.tokens import tokens

MessageT = TypeVar("MessageT", bound=Message)

_QUOTED_CHARACTERS = 80

# Protobuf's parser, in Python, takes about two seconds for a megabyte. A config has some kilobytes,
# a label map of 100,000 classes 7 MB.
MAX_BYTES = 16_000_000

# Longer texts get only the first problem, which is protobuf's own.
_MAX_EXAMINED = 1_000_000

# Protobuf's time for a string grows with the square of the backslashes in a row.
_MAX_BACKSLASHES = 1000

# Messages of whole numbers and strings, one after the other, and nothing else. Not in the pattern
# is whatever would need a closer look: escapes, comments, octal numbers, strings in several pieces.
_PLAIN_VALUE = r"""(?:0|[1-9][0-9]{0,8}|"[^"\\\n]*"|'[^'\\\n]*')"""
_PLAIN_END = r"(?:\s*[,;]\s*|\s+|(?=\}))"
_PLAIN_FIELD = re.compile(rf"([a-z_]+)\s*:\s*({_PLAIN_VALUE})")
_PLAIN_MESSAGE = re.compile(
    rf"([a-z_]+)\s*\{{\s*((?:[a-z_]+\s*:\s*{_PLAIN_VALUE}{_PLAIN_END})*)\}}\s*"
)

_SEAL = re.compile(r"# sha256 of the lines below: ?(\S*)")


def read(
    path: str | os.PathLike,
    message_class: type[MessageT],
    error: type[UserError] = ConfigError,
) -> MessageT:
    """Reads the message in a text-proto file; raises `error` with one line."""
    return parse(read_text(path, error), message_class, str(path), error)


def read_text(
    path: str | os.PathLike, error: type[UserError] = ConfigError, may_be_changed: bool = False
) -> str:
    """Reads the text of a file that must have some.

    Args:
      may_be_changed: whether a text that is not the one that was `sealed` is warned of and used, as
        a config that somebody has edited.

    Raises:
      error: the file cannot be read, or is not what was `sealed`.
    """
    text = text_files.read_text(path, error, "text proto", MAX_BYTES)
    seal = _SEAL.match(text)
    if not seal:
        return text
    content = text.partition("\n")[2]
    if seal[1] != _digest(content):
        problem = f"{path}: was damaged or changed after mnasdet wrote it"
        if not may_be_changed:
            raise error(f"{problem}; if you changed it on purpose, remove its first line")
        logging.warning("%s; what it says now is used", problem)
    return f"\n{content}"  # Lines keep their numbers.


def sealed(text: str) -> str:
    """Returns a text proto with its digest in front, which `read` compares.

    A file with a flipped digit, or cut between two fields, is a text proto still.
    """
    return f"# sha256 of the lines below: {_digest(text)}\n{text}"


def _digest(text: str) -> str:
    # Git or an editor may have changed the ends of lines.
    return hashlib.sha256(text.replace("\r\n", "\n").encode()).hexdigest()


def parse(
    text: str,
    message_class: type[MessageT],
    name: str,
    error: type[UserError] = ConfigError,
) -> MessageT:
    """Returns the message in `text`.

    Raises:
      error: "`name`:line:column: what is wrong, what is allowed  in "the line"". Several problems
        have a line each.
    """
    is_short = len(text) <= _MAX_EXAMINED
    start = text.find("\\" * _MAX_BACKSLASHES)
    if start >= 0:
        line, column = text.count("\n", 0, start) + 1, start - text.rfind("\n", 0, start)
        problem = f"{_MAX_BACKSLASHES} backslashes in a row mean nothing; remove them"
        raise error(_placed(problem, line, column, text, name))
    try:
        message = message_class()
        message.CopyFrom(_message(text, cast(Any, message_class)))
        # "C:\new" is a valid string, but with a line break in it.
        escapes = is_short and "\\" in text
        faults = [Fault(*fault) for fault in path_faults(tokens(text))] if escapes else []
    except text_format.ParseError as problem:
        faults = _faults(text, message_class.DESCRIPTOR) if is_short else []
        if not faults:
            raise error(_describe(problem, text, message_class.DESCRIPTOR, name)) from None
    if faults:
        raise error(_report(faults, text, name)) from None
    return message


# The checks of a config, training and evaluation read one label map each for themselves.
@functools.lru_cache(maxsize=4)
def _message(text: str, message_class: Any) -> Any:
    """Returns the message in `text`, which the caller copies; ParseError says what is wrong."""
    plain = _plain_message(text, message_class)
    return text_format.Parse(text, message_class()) if plain is None else plain


def _plain_message(text: str, message_class: type[MessageT]) -> MessageT | None:
    """Returns the message in a text in the plainest form, such as most label maps have.

    It takes a fifth of protobuf's time, which is 8 s for 100,000 classes.

    Returns:
      None for any other text, sound or not: protobuf reads that.
    """
    message = message_class()
    allowed = {
        field.name: _plain_fields(field.message_type)
        for field in message_class.DESCRIPTOR.fields
        if field.message_type and field.is_repeated
    }
    end = len(text) - len(text.lstrip())
    while (match := _PLAIN_MESSAGE.match(text, end)) and match[1] in allowed:
        fields = _PLAIN_FIELD.findall(match[2])
        values = {name: value[1:-1] if value[0] in "\"'" else int(value) for name, value in fields}
        types = allowed[match[1]]
        if len(values) < len(fields) or any(
            types.get(name) is not type(value) for name, value in values.items()
        ):
            return None
        getattr(message, match[1]).add(**values)
        end = match.end()
    return message if end == len(text) else None


def _plain_fields(message: Any) -> dict[str, type]:
    """Returns the types of the fields that have one whole number or string."""
    types = {FieldDescriptor.CPPTYPE_STRING: str}
    types |= dict.fromkeys((FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64), int)
    return {
        field.name: types[field.cpp_type]
        for field in message.fields
        if field.cpp_type in types
        and field.type != FieldDescriptor.TYPE_BYTES
        and not (field.is_repeated or field.containing_oneof)
    }


def _faults(text: str, root: Any) -> list[Fault]:
    """Returns what is wrong with a text that protobuf does not read, the cause first."""
    found = list(tokens(text))
    if problem := whole_fault(found):
        return [Fault(found[0], problem)]
    # A string that is not closed swallows fields, and a wrong character looks like part of a name:
    # what else seems wrong then is a consequence.
    return (
        [Fault(*fault) for fault in path_faults(found)]
        or characters_faults(found)
        or fields_faults(found, root)
    )


def _report(faults: list[Fault], text: str, name: str) -> str:
    """Returns one line a problem, as `config.load` reports several."""
    if len(faults) == 1:
        token = faults[0].token
        return _placed(faults[0].problem, token.line, token.column, text, name)
    lines = [f"  line {fault.token.line}: {fault.problem}" for fault in faults[:MAX_TOLD]]
    if len(faults) > MAX_TOLD:
        lines.append(f"  and {len(faults) - MAX_TOLD} more")
    return "\n".join([f"{len(faults)} problems in {name}:", *lines])


def _placed(problem: str, line: int, column: int, text: str, name: str) -> str:
    # Before it is cut: half of a URL would not be known as one.
    whole = passwords.masked(text.split("\n")[line - 1])
    # Only the part of a long line around the column.
    start = column - _QUOTED_CHARACTERS // 2 if column > _QUOTED_CHARACTERS else 0
    quoted = whole[start:].strip()[:_QUOTED_CHARACTERS]
    return f'{name}:{line}:{column}: {problem}  in "{quoted}"'


def _describe(problem: text_format.ParseError, text: str, root: Any, name: str) -> str:
    """Returns protobuf's own message, made to say what is allowed."""
    raw = re.sub(r"^\d+:\d+ : ", "", str(problem))
    # Where protobuf quotes the line as well, it does so in front.
    raw = re.sub(r"^'.*?': (?=[A-Z])", "", raw, flags=re.DOTALL)
    what = " ".join(_explain(raw, root).split())
    return _placed(what, problem.GetLine() or 1, problem.GetColumn() or 1, text, name)


def _explain(raw: str, root: Any) -> str:
    pool = root.file.pool
    if match := re.match(r'Message type "(\S+)" has no field named "(.+)"', raw):
        return no_field(match[2], pool.FindMessageTypeByName(match[1]))
    if match := re.match(r'Enum type "(\S+)" has no value (?:named|with number) (\S+)\.', raw):
        return no_value(match[2], pool.FindEnumTypeByName(match[1]))
    if match := re.match(r'Message type "\S+?(\w+)" should not have multiple "(\w+)" fields', raw):
        return f'"{match[2]}" is set a second time in {match[1]}; keep one'
    if match := re.match(r'Field "(\w+)" is specified along with field "(\w+)"', raw):
        return f'"{match[1]}" excludes "{match[2]}", which is set above; keep one'
    if raw == 'Expected "}".':
        return 'the file ends inside a message; a "}" is missing'
    if raw.endswith("got }."):
        return 'a "}" too many'
    return raw[0].lower() + raw[1:].rstrip(".")

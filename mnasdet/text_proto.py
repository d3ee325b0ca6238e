"""Reads text protos, with errors that say where, what was met and what is allowed."""

from __future__ import annotations

import difflib
import os
import re
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.message import Message

from mnasdet.errors import ConfigError, UserError, nearest

MessageT = TypeVar("MessageT", bound=Message)

_QUOTED_CHARACTERS = 80

# Fields that SSD-family configs of the TF Object Detection API often have and that are not
# supported where they stand there.
_OD_API_FIELDS = """
autoaugment_image bifpn calibration_config center_net clip_boxes equalization_loss faster_rcnn
force_use_bias group_norm implicit_example_weight keypoint_box_coder
l1_regularizer mask_head_config mean_stddev_box_coder random_resize_method summarize_gradients
use_confidences_as_targets weight_regression_loss_by_score weighted_giou weighted_iou
"""


def read(
    path: str | os.PathLike,
    message_class: type[MessageT],
    error: type[UserError] = ConfigError,
) -> MessageT:
    """The message in a text-proto file; raises `error` with one line."""
    return parse(read_text(path, error), message_class, str(path), error)


def read_text(path: str | os.PathLike, error: type[UserError] = ConfigError) -> str:
    """The text of a file that must have some; raises `error` with one line."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise error(f"{path}: no such file{similar_file(path)}") from None
    except IsADirectoryError:
        raise error(f"{path}: is a directory; name a text-proto file in it") from None
    except UnicodeDecodeError:
        raise error(f"{path}: is a binary file; a text proto is needed") from None
    except OSError as problem:
        raise error(f"{path}: {problem.strerror}") from None
    if "\0" in text:
        raise error(f"{path}: is a binary file; a text proto is needed")
    if not text.strip():
        raise error(f"{path}: is empty")
    return text


def parse(
    text: str,
    message_class: type[MessageT],
    name: str,
    error: type[UserError] = ConfigError,
) -> MessageT:
    """The message in `text`.

    Raises:
      error: "`name`:line:column: what is wrong, what is allowed  in "the line"".
    """
    try:
        return text_format.Parse(text, message_class())
    except text_format.ParseError as problem:
        raise error(_describe(problem, text, message_class.DESCRIPTOR, name)) from None


def similar_file(path: Path) -> str:
    """Returns what a message about a missing file adds: the file that was probably meant."""
    if not path.parent.is_dir():
        return f"; there is no folder {path.parent} either"
    names = [other.name for other in path.parent.iterdir() if other.is_file()]
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / close[0]}?" if close else ""


def _describe(problem: text_format.ParseError, text: str, root: Any, name: str) -> str:
    """Protobuf's own message, made to say what is allowed."""
    line, column = problem.GetLine() or 1, problem.GetColumn() or 1
    quoted = text.split("\n")[line - 1].strip()[:_QUOTED_CHARACTERS]
    raw = re.sub(r"^\d+:\d+ : ", "", str(problem))
    # Where protobuf quotes the line as well, it does so in front.
    raw = re.sub(r"^'.*?': (?=[A-Z])", "", raw, flags=re.DOTALL)
    what = " ".join(_explain(raw, root).split())
    return f'{name}:{line}:{column}: {what}  in "{quoted}"'


def _explain(raw: str, root: Any) -> str:
    pool = root.file.pool
    if match := re.match(r'Message type "(\S+)" has no field named "(.+)"', raw):
        return _no_field(match[2], pool.FindMessageTypeByName(match[1]))
    if match := re.match(r'Enum type "(\S+)" has no value (?:named|with number) (\S+)\.', raw):
        return _no_value(match[2], pool.FindEnumTypeByName(match[1]))
    if match := re.match(r'Message type "\S+?(\w+)" should not have multiple "(\w+)" fields', raw):
        return f'"{match[2]}" is set a second time in {match[1]}; keep one'
    if match := re.match(r'Field "(\w+)" is specified along with field "(\w+)"', raw):
        return f'"{match[1]}" excludes "{match[2]}", which is set above; keep one'
    if raw == 'Expected "}".':
        return 'the file ends inside a message; a "}" is missing'
    if raw.endswith("got }."):
        return 'a "}" too many'
    return raw[0].lower() + raw[1:].rstrip(".")


def _no_field(field: str, message: Any) -> str:
    allowed = list(message.fields_by_name)
    if field in _OD_API_FIELDS.split():
        return (
            f'"{field}" of the TF Object Detection API is not supported in {message.name}; '
            f"remove it{_listed(field, allowed)}"
        )
    return f'no field "{field}" in {message.name}{_guess(field, allowed)}{_listed(field, allowed)}'


def _no_value(value: str, enum: Any) -> str:
    allowed = list(enum.values_by_name)
    return f'no value "{value}" in {enum.name}{_guess(value, allowed)}{_listed(value, allowed)}'


def _guess(name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _listed(name: str, allowed: list[str]) -> str:
    """All that is allowed, nearest first."""
    return f" (allowed: {nearest(name, allowed).removeprefix('one of ') if allowed else 'nothing'})"

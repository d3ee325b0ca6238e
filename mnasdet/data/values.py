"""The meaning of values in annotation files, however their writers spell them.

pandas writes whole numbers as floats and gaps as NaN; others write numbers and flags as strings.
"""

from __future__ import annotations

import math
import re
from typing import Any

from mnasdet.errors import shown

_DIGITS = re.compile(r"[+-]?[0-9]+(\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_FLAGS = {"0": False, "1": True, "false": False, "true": True}
# The largest id that a label map holds.
MAX_CLASS_ID = 2**31 - 1

# Characters of the name of a class. Every box of a record has it beside its id.
_MAX_NAME_CHARACTERS = 1000


def is_stated(value: Any) -> bool:
    """Returns whether a value says anything; null, "" and pandas' NaN do not."""
    return not (value is None or value == "" or (isinstance(value, float) and math.isnan(value)))


def number(value: Any) -> float:
    """Returns the finite number that a number or a string of digits means.

    Raises:
      ValueError: for anything else, with the value alone as its message.
    """
    # Not all that float() takes: "1_0" and "infinity" are no coordinates.
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            result = float(value)
        except OverflowError:  # An integer of hundreds of digits.
            result = math.inf
        if math.isfinite(result):
            return result
    raise ValueError(_quoted(value))


def whole(value: Any) -> int:
    """Returns the whole number that 7, 7.0, "7" or "7.0" means.

    Raises:
      ValueError: for anything else, with the value alone as its message.
    """
    if isinstance(value, str) and _DIGITS.fullmatch(value.strip()) and len(value) < 300:
        return int(value.strip().partition(".")[0])
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise ValueError(_quoted(value))


def flag(value: Any) -> bool:
    """Returns the flag that 0, 1, true or false means, as a string too; nothing stated is false.

    `bool` is no way to read one: bool("0") is true.

    Raises:
      ValueError: for anything else, with the value and what is allowed.
    """
    if isinstance(value, bool):
        return value
    if not is_stated(value):
        return False
    text = str(value).strip().lower()
    if isinstance(value, (str, int, float)) and text.removesuffix(".0") in _FLAGS:
        return _FLAGS[text.removesuffix(".0")]
    raise ValueError(f"{_quoted(value)}: expected 0, 1, true or false")


def identity(value: Any) -> int | str | None:
    """Returns what an id is compared by: 7, 7.0 and "7" are one id; None is no id."""
    try:
        return whole(value)
    except ValueError:
        return value if isinstance(value, str) and value else None


def size(height: Any, width: Any) -> tuple[int, int] | None:
    """Returns the (height, width) that an annotation states; None where it states none.

    Sizes of 0 and -1 are written by tools that have not opened the picture.

    Raises:
      ValueError: when a side is no whole number.
    """
    sides = []
    for name, value in (("height", height), ("width", width)):
        if not is_stated(value):
            return None
        try:
            sides.append(whole(value))
        except ValueError as problem:
            raise ValueError(f"{name} is {problem}, expected a number of pixels") from None
    return (sides[0], sides[1]) if min(sides) > 0 else None


def area(value: Any) -> float | None:
    """Returns an area in square pixels; None, which takes the box's, where it is of no use.

    An object has more than one square pixel: less is no area, or a share of the image.
    """
    try:
        result = number(value)
    except ValueError:
        return None
    return result if result > 1 else None


def check_name(name: str) -> None:
    """Checks the length of the name of a class.

    Raises:
      ValueError: when it is no name but a whole text.
    """
    if len(name) > _MAX_NAME_CHARACTERS:
        raise ValueError(
            f"the name has {len(name)} characters; at most {_MAX_NAME_CHARACTERS} are allowed"
        )
    # Readers of a TFLite file's labels, which stand one a line, would count on from the second.
    if len(name.splitlines()) > 1:
        raise ValueError(f"the name {name!r} has a line break in it")


def text(value: Any) -> str:
    """Returns a string that can be written to a record; "" for anything else."""
    if not isinstance(value, str):
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:  # Half of a surrogate pair: "\\ud800" in JSON.
        return ""
    return value


def _quoted(value: Any) -> str:
    return repr(shown(value)) if isinstance(value, str) else shown(value)

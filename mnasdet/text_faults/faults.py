"""Finds all that is wrong with the fields of a text proto.

Protobuf stops at the first field that it does not know. This walk goes on, in one pass over the
tokens, and knows what a message allows from its descriptor.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mnasdet.errors import nearest, shown
from mnasdet.text_faults import od_api
from mnasdet.text_faults.pasted import character_fault
from mnasdet.text_faults.tokens import Token, is_field

_OPENING, _CLOSING = ("{", "<"), ("}", ">")

# Problems that are worth telling in full; nobody mends more before the next look, and to search
# for what is nearest takes milliseconds.
MAX_TOLD = 50

# Allowed names that are listed with a problem.
_MAX_LISTED = 12

# The fields that hold the kind of a whole feature extractor.
_EXTRACTORS = (("SsdFeatureExtractor", "type"), ("FasterRcnnFeatureExtractor", "type"))


@dataclass(frozen=True)
class Fault:
    """A fault at a token. A cause explains all others, which are then not worth telling."""

    token: Token
    problem: str
    is_cause: bool = False


class _Walk:
    """The messages around the current token, outermost first, and the last field met.

    `messages` has None for what is inside an unknown field: nothing in it can be judged.
    """

    def __init__(self, root: Any, lacks_brace: bool):
        self.messages = [root]
        self.lacks_brace = lacks_brace
        self.field: Any = None
        self.opened_by: list[Any] = []
        self.faults: list[Fault] = []

    def report(self, token: Token, problem: str, is_cause: bool = False) -> None:
        self.faults.append(Fault(token, problem, is_cause))


def fields_faults(found: Sequence[Token], root: Any) -> list[Fault]:
    """Returns what is wrong with the fields of a message, in the order of the text.

    Args:
      found: the tokens of the whole text.
      root: the message's descriptor.
    """
    opened = sum(token.text in _OPENING for token in found)
    closed = sum(token.text in _CLOSING for token in found)
    walk = _Walk(root, lacks_brace=opened > closed)
    in_list = False
    for token, previous, following in _with_neighbours(found):
        if token.text in _OPENING:
            walk.opened_by.append(walk.field)
            walk.messages.append(walk.field.message_type if walk.field else None)
        elif token.text in _CLOSING:
            if len(walk.messages) == 1:
                walk.report(token, f'a "{token.text}" too many')
                break
            walk.messages.pop()
            # In a list of messages the next one is of the same field.
            walk.field = walk.opened_by.pop()
        elif token.text in ("[", "]"):
            in_list = token.text == "["
        elif is_field(token, following):
            in_list = False
            _enter(walk, token)
        elif walk.field and (in_list or (previous and previous.text == ":")):
            _check_value(walk, token)
    causes = [fault for fault in walk.faults if fault.is_cause]
    return causes[:1] or walk.faults


def characters_faults(found: Sequence[Token]) -> list[Fault]:
    """Returns the characters that are no text proto, the first of each line."""
    faults: dict[int, Fault] = {}
    for token in found:
        outside = token.kind in ("word", "open_string") and token.line not in faults
        if outside and (problem := character_fault(token)):
            faults[token.line] = Fault(token, problem)
    return list(faults.values())


def _with_neighbours(
    found: Sequence[Token],
) -> Iterator[tuple[Token, Token | None, Token | None]]:
    for position, token in enumerate(found):
        previous = found[position - 1] if position else None
        yield token, previous, found[position + 1] if position + 1 < len(found) else None


def _enter(walk: _Walk, token: Token) -> None:
    """Takes the field of the current message that a token names, or reports it."""
    message = walk.messages[-1]
    walk.field = message.fields_by_name.get(token.text) if message else None
    if walk.field or not message:
        return
    around = _holder(walk.messages[:-1], token.text)
    if around is not None and walk.lacks_brace:
        # The fields below are those of the message around as well: the missing brace is the fault.
        walk.report(token, f'a "}}" is missing above; {message.name} has no field "{token.text}"')
        del walk.messages[around + 1 :], walk.opened_by[around:]
        walk.field = walk.messages[-1].fields_by_name[token.text]
        walk.lacks_brace = False
        return
    if message.name == "DetectionModel" and (cause := od_api.absent_model(token.text)):
        walk.report(token, cause, is_cause=True)
    elif around is not None:
        walk.report(
            token,
            f'"{token.text}" is no field of {message.name} but of {walk.messages[around].name} '
            "around it; move it there",
        )
    else:
        told = len(walk.faults) < MAX_TOLD
        walk.report(token, no_field(token.text, message) if told else "")


def _holder(messages: Sequence[Any], name: str) -> int | None:
    """Returns the position of the innermost message that has a field of that name."""
    for position in reversed(range(len(messages))):
        if messages[position] is not None and name in messages[position].fields_by_name:
            return position
    return None


def _check_value(walk: _Walk, token: Token) -> None:
    """Reports a name that an enum has not, and the type of a feature extractor that is not here."""
    enum = walk.field.enum_type
    is_name = token.kind == "word" and not token.text.lstrip("-").isdigit()
    if enum and is_name and token.text not in enum.values_by_name:
        told = len(walk.faults) < MAX_TOLD
        walk.report(token, no_value(token.text, enum) if told else "")
    owner = (walk.field.containing_type.name, walk.field.name)
    extractor = token.text[1:-1] if owner in _EXTRACTORS and token.kind == "string" else ""
    if cause := od_api.absent_extractor(extractor):
        walk.report(token, f'{cause}; "{extractor}" is not supported', is_cause=True)


def no_field(name: str, message: Any) -> str:
    """Returns what to say of a field that a message has not."""
    if known := od_api.unsupported_field(name, message.name):
        return known
    allowed = tuple(message.fields_by_name)
    return (
        f'no field "{shown(name)}" in {message.name}{_guess(name, allowed)}{_listed(name, allowed)}'
    )


def no_value(name: str, enum: Any) -> str:
    """Returns what to say of a name that is no value of an enum."""
    allowed = tuple(enum.values_by_name)
    return f'no value "{shown(name)}" in {enum.name}{_guess(name, allowed)}{_listed(name, allowed)}'


def _guess(name: str, allowed: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    return f'; did you mean "{close[0]}"?' if close else ""


def _listed(name: str, allowed: tuple[str, ...]) -> str:
    """Returns what is allowed, nearest first; of a long list only its start is of use."""
    names = nearest(name, allowed).removeprefix("one of ").split(", ") if allowed else ["nothing"]
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return f" (allowed: {', '.join(names[:_MAX_LISTED])}{more})"

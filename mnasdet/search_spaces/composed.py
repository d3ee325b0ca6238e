"""Search spaces put together of parts, each of which fills one part of an architecture."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence

from google.protobuf.message import Message

from mnasdet.errors import UserError
from mnasdet.protos import architecture_pb2
from mnasdet.search_spaces.space import Choice, Decision, SearchSpace

# Fields of an Architecture that describe its origin, and not its layers.
_NOT_COMPARED = ("name", "source", "published_at")


class Part(abc.ABC):
    """Decisions that belong together: on a backbone, on a cell, on one field.

    Apart from the values of its decisions, a part writes the same into every architecture.

    Attributes:
      fields: paths in the Architecture of all that the decisions choose, such as
        "feature_pyramid.mnasfpn.block".
    """

    fields: tuple[str, ...] = ()

    @abc.abstractmethod
    def decisions(self, first: int) -> list[Decision]:
        """Returns the decisions in order; the first one has the index `first` in the space."""

    @abc.abstractmethod
    def write(
        self, values: Mapping[str, Choice], architecture: architecture_pb2.Architecture
    ) -> None:
        """Writes the values of the decisions, by name, into an architecture."""

    @abc.abstractmethod
    def read(self, architecture: architecture_pb2.Architecture) -> Mapping[str, Choice]:
        """Returns the values that `write` would make this architecture of.

        The architecture agrees with the space in all but the parts' fields. Values need not be
        among the choices.

        Raises UserError for what no values describe.
        """


class ComposedSpace(SearchSpace):
    """A base architecture of which parts are searched.

    Attributes:
      base: all that no part writes.
      example: the architecture of the first choices.
    """

    def __init__(self, base: architecture_pb2.Architecture, parts: Sequence[Part]) -> None:
        self.base = base
        self._parts = tuple(parts)
        decisions: list[Decision] = []
        for part in self._parts:
            decisions += part.decisions(first=len(decisions))
        super().__init__(decisions)
        # The first allowed choices always decode, so the space can be checked by one example before
        # any trial.
        tokens: list[int] = []
        for index in range(len(decisions)):
            tokens.append(self.allowed(index, tokens)[0])
        self.example = self.decode(tokens)

    def _decode(self, values: Mapping[str, Choice]) -> architecture_pb2.Architecture:
        architecture = architecture_pb2.Architecture()
        architecture.CopyFrom(self.base)
        for field in _NOT_COMPARED:
            architecture.ClearField(field)
        for part in self._parts:
            part.write(values, architecture)
        return architecture

    def _encode(self, architecture: architecture_pb2.Architecture) -> Mapping[str, Choice]:
        chosen = {field for part in self._parts for field in part.fields}
        different = difference(self.example, architecture, chosen.union(_NOT_COMPARED))
        if different:
            raise UserError(f"architecture {architecture.name!r}: {different} in the search space")
        values: dict[str, Choice] = {}
        for part in self._parts:
            values.update(part.read(architecture))
        return values


def difference(
    expected: Message, other: Message, left_out: Collection[str] = (), path: str = ""
) -> str:
    """Returns the first field that differs, "path is value, but expected value"; or "".

    Args:
      left_out: paths of fields that do not matter.
      path: of both messages, with the "." after it.
    """
    for field in expected.DESCRIPTOR.fields:
        name = path + field.name
        if name in left_out:
            continue
        value, other_value = getattr(expected, field.name), getattr(other, field.name)
        if field.message_type is None:
            if value != other_value:
                return f"{name} is {other_value}, but {value}"
        elif isinstance(value, Message):
            only_one = expected.HasField(field.name) != other.HasField(field.name)
            other_kind = only_one and field.containing_oneof
            inside = "" if other_kind else difference(value, other_value, left_out, f"{name}.")
            if inside or only_one:
                # An empty message counts: `conv_hyperparams {}` stands for other hyper-parameters
                # than none.
                return inside or f"{name} is not what is"
        elif inside := _list_difference(value, other_value, left_out, name):
            return inside
    return ""


def _list_difference(
    expected: Sequence[Message], other: Sequence[Message], left_out: Collection[str], name: str
) -> str:
    if len(expected) != len(other):
        return f"{name} has {len(other)} entries, but {len(expected)} are"
    for index, values in enumerate(zip(expected, other, strict=True)):
        if different := difference(*values, left_out, f"{name}[{index}]."):
            return different
    return ""

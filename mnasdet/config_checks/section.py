"""A message of a config together with its path and the list of its problems."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from mnasdet.errors import one_line


@dataclass(frozen=True)
class Section:
    """A message of the config, its path, and the list that takes its problems."""

    message: Any
    path: str
    problems: list[str]

    def field(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def report(self, name: str, problem: str) -> None:
        # A problem of several lines would read as several problems.
        self.problems.append(one_line(f"{self.field(name)} {problem}"))

    def require(self, fulfilled: bool, name: str, allowed: str) -> None:
        """Reports the field's value unless `fulfilled`; `allowed` says what it has to be."""
        if not fulfilled:
            self.report(name, f"is {_shown(self.message, name)}; {allowed}")

    def at_least(self, name: str, minimum: float) -> None:
        value = getattr(self.message, name)
        # In this form not-a-number fails as well: each comparison with it is false.
        self.require(minimum <= value < math.inf, name, f"at least {_number(minimum)} is allowed")

    def at_most(self, name: str, maximum: float) -> None:
        value = getattr(self.message, name)
        self.require(value <= maximum, name, f"at most {_number(maximum)} is allowed")

    def counts(self, maximum: int, *names: str, minimum: int = 1) -> None:
        """Reports the fields that are not `minimum` to `maximum`."""
        for name in names:
            self.at_least(name, minimum)
            self.at_most(name, maximum)

    def positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self.message, name)
            self.require(0 < value < math.inf, name, "more than 0 is allowed")

    def within(self, name: str, low: float, high: float) -> None:
        value = getattr(self.message, name)
        self.require(low <= value <= high, name, f"{_number(low)} to {_number(high)} is allowed")

    def only(self, name: str, supported: Any) -> None:
        """Reports any other value of a field of which one value is supported."""
        self.require(
            getattr(self.message, name) == supported,
            name,
            f"only {_text(self.message, name, supported)} is supported",
        )

    def ordered(self, low: str, high: str) -> None:
        value, limit = getattr(self.message, low), getattr(self.message, high)
        self.require(
            value <= limit, low, f"at most {high}, {_shown(self.message, high)}, is allowed"
        )

    def child(self, name: str) -> Section:
        """Returns a message inside, present or not."""
        return Section(getattr(self.message, name), self.field(name), self.problems)

    def children(self, name: str) -> list[Section]:
        messages = getattr(self.message, name)
        return [
            Section(message, f"{self.field(name)}[{i}]", self.problems)
            for i, message in enumerate(messages)
        ]

    def needed(self, name: str) -> Section | None:
        """Returns a message inside that has to be there, and reports a missing one."""
        if self.message.HasField(name):
            return self.child(name)
        self.report(name, "is missing")
        return None

    def chosen(self, oneof: str) -> Section | None:
        """Returns the message that is set in a oneof, and reports it if none is."""
        name = self.message.WhichOneof(oneof)
        if name:
            return self.child(name)
        members = [field.name for field in self.message.DESCRIPTOR.oneofs_by_name[oneof].fields]
        self.problems.append(f"{self.path} is empty; set {' or '.join(members)}")
        return None

    def selected(self, name: str, oneof: str) -> Section | None:
        """Returns the member that is set in the only oneof of message `name`."""
        section = self.needed(name)
        return section.chosen(oneof) if section else None


def _shown(message: Any, name: str) -> str:
    return _text(message, name, getattr(message, name))


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _text(message: Any, name: str, value: Any) -> str:
    """Returns a value of the field as it stands in a config."""
    descriptor = message.DESCRIPTOR.fields_by_name[name]
    if descriptor.enum_type:
        return descriptor.enum_type.values_by_number[value].name
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"  # float32's own digits, not those of a double
    return f'"{value}"' if isinstance(value, str) else str(value)

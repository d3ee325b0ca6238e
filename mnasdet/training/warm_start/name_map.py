"""Name maps: which variable of a source is which of ours.

The maps are data: name_maps/*.textproto, in the form of protos/name_map.proto. A new source is a
new file there.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mnasdet import text_proto
from mnasdet.errors import ConfigError
from mnasdet.protos import name_map_pb2

# {n} and {n:3-5} in names of ours; {n}, {n-1}, {n+6} and {2n-4} in names of theirs.
_OURS = re.compile(r"\{([a-z])(?::(\d+)-(\d+))?\}")
_THEIRS = re.compile(r"\{(\d*)([a-z])([+-]\d+)?\}")


@dataclass(frozen=True)
class Layer:
    """A layer of the source that has the place of one of ours.

    Attributes:
      name: in the source, without a variable's part.
      optional: whether the model can do without it.
    """

    name: str
    optional: bool


@dataclass(frozen=True)
class _Rule:
    ours: re.Pattern[str]
    ranges: Mapping[str, range]
    theirs: str
    optional: bool

    def apply(self, layer: str) -> Layer | None:
        """Returns the source's layer for one of ours; None where the rule is not for it."""
        if not (found := self.ours.fullmatch(layer)):
            return None
        numbers = {letter: int(digits) for letter, digits in found.groupdict().items()}
        if any(numbers[letter] not in allowed for letter, allowed in self.ranges.items()):
            return None
        return Layer(
            _THEIRS.sub(lambda match: _counted(match, numbers), self.theirs), self.optional
        )


def _counted(match: re.Match[str], numbers: Mapping[str, int]) -> str:
    factor, letter, offset = match.groups()
    return str(int(factor or 1) * numbers[letter] + int(offset or 0))


class NameMap:
    """The names and the facts of a source.

    Attributes:
      proto: the file's message.
    """

    def __init__(self, proto: name_map_pb2.NameMap):
        """
        Raises:
          ConfigError: a name has a placeholder that is none, or that only one side has.
        """
        self.proto = proto
        self._rules = [
            _rule(ours, theirs, group.optional)
            for group in proto.group
            for ours, theirs in _pairs(group)
        ]
        self._variables = {variable.ours: variable for variable in proto.variable}

    @property
    def source(self) -> str:
        return self.proto.source

    def is_of(self, names: Mapping[str, object]) -> bool:
        """Tells whether a file with these variables is of this source."""
        has, has_not = self.proto.has, self.proto.has_not
        return all(name in names for name in has) and not any(name in names for name in has_not)

    def layers(self, ours: str) -> list[Layer]:
        """Returns the source's layers that may have the place of our layer, in the map's order."""
        return [layer for rule in self._rules if (layer := rule.apply(ours))]

    def names(self, layer: Layer, variable: str) -> list[str]:
        """Returns the names that a variable of a source's layer may have.

        Args:
          variable: the last part of our name, "kernel".
        """
        known = self._variables.get(variable)
        return [f"{layer.name}{ending}" for ending in known.theirs] if known else []

    def absent(self, variable: str) -> float | None:
        """Returns the value of a variable that a source leaves out; None: it must not."""
        known = self._variables.get(variable)
        return known.absent if known and known.HasField("absent") else None


def _pairs(group: name_map_pb2.Group) -> Iterator[tuple[str, str]]:
    for layer in group.layer:
        if not group.scope:
            yield layer.ours, layer.theirs
        # The sign between a scope and a layer is the source's own: it stands in front of the layer.
        for scope in group.scope:
            yield f"{scope.ours}/{layer.ours}", f"{scope.theirs}{layer.theirs}"


def _rule(ours: str, theirs: str, optional: bool) -> _Rule:
    found = list(_OURS.finditer(ours))
    ranges = {
        match[1]: range(int(match[2]), int(match[3]) + 1) for match in found if match[2] is not None
    }
    letters = {match[1] for match in found}
    wanted = {match[2] for match in _THEIRS.finditer(theirs)}
    for name, pattern in ((ours, _OURS), (theirs, _THEIRS)):
        if set("{}") & set(pattern.sub("", name)):
            raise ConfigError(f'"{name}" has a brace that is no placeholder')
    if not wanted <= letters:
        raise ConfigError(f'"{theirs}" has {{{min(wanted - letters)}}}, which "{ours}" has not')
    pattern, end = "", 0
    for match in found:
        # A letter that comes twice stands for the same number.
        number = (
            rf"(?P<{match[1]}>\d+)" if f"(?P<{match[1]}>" not in pattern else f"(?P={match[1]})"
        )
        pattern += re.escape(ours[end : match.start()]) + number
        end = match.end()
    return _Rule(re.compile(pattern + re.escape(ours[end:])), ranges, theirs, optional)


def load(path: Path) -> NameMap:
    """Reads a map.

    Raises:
      ConfigError: what is wrong in which file, and in which line where that is known.
    """
    try:
        return NameMap(text_proto.read(path, name_map_pb2.NameMap))
    except ConfigError as error:
        told = str(error)
        raise ConfigError(told if str(path) in told else f"{path}: {told}") from None


@functools.cache
def all_maps() -> tuple[NameMap, ...]:
    """Returns the maps that come with the library, by the names of their files."""
    folder = Path(str(importlib.resources.files("mnasdet.training.warm_start"))) / "name_maps"
    return tuple(load(path) for path in sorted(folder.glob("*.textproto")))


def recognized(names: Mapping[str, object]) -> NameMap | None:
    """Returns the map for a file with these variables; None if it is of no source that is known."""
    return next((one for one in all_maps() if one.is_of(names)), None)

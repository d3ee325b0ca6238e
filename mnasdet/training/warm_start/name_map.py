"""Name maps: which variable of a source is which of ours.

The maps are data: name_maps/*.textproto, in the form of protos/name_map.proto. A new source is a
new file there.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mnasdet import text_proto
from mnasdet.errors import ConfigError
from mnasdet.networks.names import in_backbone
from mnasdet.protos import name_map_pb2

# {n} and {n:3-5} in names of ours; {n}, {n-1}, {n+6} and {2n-4} in names of theirs.
_OURS = re.compile(r"\{([a-z])(?::(\d+)-(\d+))?\}")
_THEIRS = re.compile(r"\{(\d*)([a-z])([+-]\d+)?\}")

# In names of theirs.
_ROOT = "{root}"


@dataclass(frozen=True)
class Layer:
    """A layer of the source that has the place of one of ours.

    Attributes:
      name: in the source, without a variable's part.
      optional: whether the model can do without it.
      batch_norm_epsilon: of a batch normalisation.
    """

    name: str
    optional: bool
    batch_norm_epsilon: float


@dataclass(frozen=True)
class _Pattern:
    """A name of ours with placeholders."""

    expression: re.Pattern[str]
    ranges: Mapping[str, range]

    def match(self, layer: str) -> dict[str, int] | None:
        """Returns the numbers in a layer's name by their letters; None where it has another."""
        if not (found := self.expression.fullmatch(layer)):
            return None
        numbers = {letter: int(digits) for letter, digits in found.groupdict().items()}
        in_range = all(numbers[letter] in allowed for letter, allowed in self.ranges.items())
        return numbers if in_range else None


@dataclass(frozen=True)
class _Rule:
    part: str
    ours: _Pattern
    theirs: str
    optional: bool
    batch_norm_epsilon: float

    @functools.cached_property
    def names(self) -> re.Pattern[str]:
        """Returns what the names of the source's layers look like, whatever their numbers."""
        pieces = re.split(r"\{[^}]*\}", self.theirs)
        return re.compile(r"\d+".join(map(re.escape, pieces)))

    def apply(self, layer: str) -> Layer | None:
        """Returns the source's layer for one of ours; None where the rule is not for it."""
        if (numbers := self.ours.match(layer)) is None:
            return None
        name = _THEIRS.sub(lambda match: _counted(match, numbers), self.theirs)
        return Layer(name, self.optional, self.batch_norm_epsilon)


def _counted(match: re.Match[str], numbers: Mapping[str, int]) -> str:
    factor, letter, offset = match.groups()
    return str(int(factor or 1) * numbers[letter] + int(offset or 0))


class NameMap:
    """The names and the facts of a source.

    Attributes:
      proto: the file's message.
    """

    def __init__(self, proto: name_map_pb2.NameMap, root: str = ""):
        """
        Args:
          root: where the network is in the names of a file, one of the message's roots.

        Raises:
          ConfigError: a name has a placeholder that is none, or that only one side has.
        """
        self.proto = proto
        self._root = root
        self._rules = [
            _rule(ours, theirs.replace(_ROOT, root), group, proto)
            for group in proto.group
            for ours, theirs in _pairs(group)
        ]
        self._strided = {one.difference: _pattern(one.layer) for one in proto.strided}
        self._variables = {variable.ours: variable for variable in proto.variable}

    @property
    def source(self) -> str:
        return self.proto.source

    @property
    def has(self) -> list[str]:
        """Returns the variables that a file of this source has to have."""
        return [name.replace(_ROOT, self._root) for name in self.proto.has]

    def is_of(self, names: Mapping[str, object]) -> bool:
        """Tells whether a file with these variables is of this source."""
        has_not = [name.replace(_ROOT, self._root) for name in self.proto.has_not]
        return all(name in names for name in self.has) and not any(
            name in names for name in has_not
        )

    def layers(self, ours: str) -> list[Layer]:
        """Returns the source's layers that may have the place of our layer, in the map's order."""
        ours = in_backbone(ours)
        return [layer for rule in self._rules if (layer := rule.apply(ours))]

    def names(self, layer: Layer, variable: str) -> list[str]:
        """Returns the names that a variable of a source's layer may have.

        Args:
          variable: the last part of our name, "kernel".
        """
        known = self._variables.get(variable)
        return [f"{layer.name}{ending}" for ending in known.theirs] if known else []

    def is_of_part(self, name: str, parts: Collection[str]) -> bool:
        """Tells whether a variable of a source has the place of one in these parts of a model.

        It may be of a layer that the model has not: a block past its last one. Layers that a model
        can do without do not count.
        """
        for variable in self._variables.values():
            for ending in variable.theirs:
                layer = name.removesuffix(ending)
                if layer != name and any(
                    rule.part in parts and not rule.optional and rule.names.fullmatch(layer)
                    for rule in self._rules
                ):
                    return True
        return False

    def absent(self, variable: str) -> float | None:
        """Returns the value of a variable that a source leaves out; None: it must not."""
        known = self._variables.get(variable)
        return known.absent if known and known.HasField("absent") else None

    def other_strides(self, strides: Mapping[str, int]) -> list[str]:
        """Returns what is to say of our layers that stride in the source and not here.

        Args:
          strides: of our layers, by name.
        """
        return [
            difference
            for difference, pattern in self._strided.items()
            if any(of == 1 and pattern.match(layer) is not None for layer, of in strides.items())
        ]


def _pairs(group: name_map_pb2.Group) -> Iterator[tuple[str, str]]:
    for layer in group.layer:
        if not group.scope:
            yield layer.ours, layer.theirs
        # The sign between a scope and a layer is the source's own: it stands in front of the layer.
        for scope in group.scope:
            yield f"{scope.ours}/{layer.ours}", f"{scope.theirs}{layer.theirs}"


def _rule(ours: str, theirs: str, group: name_map_pb2.Group, proto: name_map_pb2.NameMap) -> _Rule:
    pattern = _pattern(ours)
    wanted = {match[2] for match in _THEIRS.finditer(theirs)}
    _check_braces(theirs, _THEIRS)
    if missing := wanted - pattern.expression.groupindex.keys():
        raise ConfigError(f'"{theirs}" has the placeholder {min(missing)}, which "{ours}" has not')
    own = group if group.HasField("batch_norm_epsilon") else proto
    part = ours.partition("/")[0]
    return _Rule(part, pattern, theirs, group.optional, own.batch_norm_epsilon)


def _pattern(ours: str) -> _Pattern:
    _check_braces(ours, _OURS)
    expression, end, ranges = "", 0, {}
    for match in _OURS.finditer(ours):
        letter, first, last = match.groups()
        expression += rf"{re.escape(ours[end : match.start()])}(?P<{letter}>\d+)"
        end = match.end()
        if first:
            ranges[letter] = range(int(first), int(last) + 1)
    try:
        return _Pattern(re.compile(expression + re.escape(ours[end:])), ranges)
    except re.error as error:
        raise ConfigError(f'"{ours}" has a placeholder twice: {error}') from None


def _check_braces(name: str, placeholders: re.Pattern[str]) -> None:
    if set("{}") & set(placeholders.sub("", name)):
        raise ConfigError(f'"{name}" has a brace that is part of no placeholder')


def load(path: Path) -> list[NameMap]:
    """Reads a file of maps: one for each of its roots.

    Raises:
      ConfigError: what is wrong in which file, and in which line where that is known.
    """
    try:
        proto = _read(path)
        return [NameMap(proto, root) for root in proto.root or [""]]
    except ConfigError as error:
        told = str(error)
        raise ConfigError(told if str(path) in told else f"{path}: {told}") from None


def _read(path: Path) -> name_map_pb2.NameMap:
    """Reads a file with those that it includes."""
    own = text_proto.read(path, name_map_pb2.NameMap)
    whole = name_map_pb2.NameMap()
    for name in own.include:
        whole.MergeFrom(_read(path.parent / name))
    # After what it includes: a field that both state has its own value.
    whole.MergeFrom(own)
    return whole


@functools.cache
def all_maps() -> tuple[NameMap, ...]:
    """Returns the maps that come with the library, by the names of their files."""
    folder = Path(str(importlib.resources.files("mnasdet.training.warm_start"))) / "name_maps"
    # Sorted, as `recognized` takes the first that fits: the same one on every machine.
    return tuple(one for path in sorted(folder.glob("*.textproto")) for one in load(path))


def recognized(names: Mapping[str, object]) -> NameMap | None:
    """Returns the map for a file with these variables; None if it is of no source that is known."""
    return next((one for one in all_maps() if one.is_of(names)), None)

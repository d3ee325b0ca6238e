"""Pipeline configs that include others: one whole, and where each of its fields stands."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mnasdet import packaged, text_files, text_proto
from mnasdet.config_checks import lines
from mnasdet.config_checks.lines import FieldPath
from mnasdet.errors import ConfigError
from mnasdet.protos import pipeline_pb2

_FIELD = "include"

# Finding the lines of a longer text would take seconds, and no config is as long.
_MAX_EXAMINED = 1_000_000


@dataclass(frozen=True)
class Place:
    """A line of a file."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Source:
    """A config as its files say it.

    Attributes:
      path: the file that includes the others.
      message: the whole, without `include`.
      places: where each field of the whole is set.
    """

    path: Path
    message: pipeline_pb2.TrainEvalPipelineConfig
    places: Mapping[FieldPath, Place]

    def place_of(self, field: str) -> Place | None:
        """Returns the place of a field, as `lines.place_of` finds it."""
        return lines.place_of(field, self.places)


def read(path: str | os.PathLike) -> Source:
    """Reads a config and the configs that it includes.

    Raises:
      ConfigError: one of the files cannot be read or has errors, or they include one another in a
        circle.
    """
    return _read(Path(path), (), {})


def _read(path: Path, around: tuple[Path, ...], known: dict[str, Source]) -> Source:
    """Reads a file that those `around` it include.

    Args:
      known: the files that were read, by their real paths. Files that two others include are read
        once: each of a chain of files could name the next one twice.
    """
    if (real := os.path.realpath(path)) in known:
        return known[real]
    text = text_proto.read_text(path, may_be_changed=True)
    message = text_proto.parse(text, pipeline_pb2.TrainEvalPipelineConfig, str(path))
    found = lines.lines(text) if len(text) <= _MAX_EXAMINED else {}
    places = {field: Place(path, line) for field, line in found.items()}
    whole = Source(path, pipeline_pb2.TrainEvalPipelineConfig(), {})
    around = (*around, path)
    for i, name in enumerate(message.include):
        # A list in brackets is one field with many values.
        place = places.get(((_FIELD, i),)) or places.get(((_FIELD, 0),)) or Place(path, 1)
        whole = _overridden(whole, _read(_find(name, around, place), around, known))
    message.ClearField(_FIELD)
    known[real] = _overridden(whole, Source(path, message, places))
    return known[real]


def _find(name: str, around: tuple[Path, ...], place: Place) -> Path:
    """Returns the file that an `include` means."""
    problem = f'{place}: include is "{name}"'
    if not name.strip():
        raise ConfigError(f"{problem}; name a config")
    try:
        path = packaged.find_config(name, place.path.parent)
    except ConfigError as error:
        raise ConfigError(f"{problem}: {error}") from None
    if not path.exists():
        raise ConfigError(f"{problem}: {path}: no such file{text_files.similar_file(path)}")
    above = [os.path.realpath(other) for other in around]
    if (real := os.path.realpath(path)) in above:
        circle = [*around[above.index(real) :], path]
        raise ConfigError(f"{problem}, a circle: {' includes '.join(map(str, circle))}")
    return path


def _overridden(base: Source, changes: Source) -> Source:
    """Returns `base` with what `changes` sets: values and repeated fields in place of its own,
    messages merged."""
    message = pipeline_pb2.TrainEvalPipelineConfig()
    message.CopyFrom(base.message)
    _clear_repeated(message, changes.message)
    message.MergeFrom(changes.message)
    replaced = set(_replaced(changes.places))
    kept = {
        field: place
        for field, place in base.places.items()
        if not any((field[:i], name) in replaced for i, (name, _) in enumerate(field))
    }
    return Source(changes.path, message, {**kept, **changes.places})


def _clear_repeated(message: Any, changes: Any) -> None:
    """Clears the repeated fields that `changes` sets: to merge would append."""
    for field, value in changes.ListFields():
        if field.is_repeated:
            message.ClearField(field.name)
        elif field.message_type and message.HasField(field.name):
            _clear_repeated(getattr(message, field.name), value)


def _replaced(places: Mapping[FieldPath, Place]) -> Iterator[tuple[FieldPath, str]]:
    """Yields the fields, each as its message and its name, that those set here take the place of:
    themselves where they are repeated, and the other members of their oneof."""
    for path in places:
        descriptor: Any = pipeline_pb2.TrainEvalPipelineConfig.DESCRIPTOR
        for name, _ in path[:-1]:
            descriptor = descriptor.fields_by_name[name].message_type
        field = descriptor.fields_by_name[path[-1][0]]
        if field.is_repeated:
            yield path[:-1], field.name
        if field.containing_oneof:
            for other in field.containing_oneof.fields:
                if other.name != field.name:
                    yield path[:-1], other.name

"""Single fields of an architecture as choices: repeats, depth multiplier, size of the images."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence

from mnasdet.errors import ConfigError
from mnasdet.protos import architecture_pb2
from mnasdet.search_spaces.choices import check, check_at_least, check_positive, decimal
from mnasdet.search_spaces.composed import Part
from mnasdet.search_spaces.space import Choice, Decision


class FieldPart(Part):
    """One number of the architecture: a decision where it has several values, else simply set.

    A larger one makes the network deeper or wider.
    """

    def __init__(self, path: str, values: Sequence[float]) -> None:
        """Args:
        path: of the field, such as "feature_pyramid.mnasfpn.repeats". Its last word is the
          decision's name.
        values: at least one.
        """
        *self._message, self._name = path.split(".")
        self._values = tuple(values)
        # A single value is no decision: every token list would have the same token in it.
        if len(self._values) > 1:
            self.fields = (path,)

    def decisions(self, first: int) -> list[Decision]:
        if len(self._values) == 1:
            return []
        return [Decision(self._name, self._values, order=operator.le)]

    def write(
        self, values: Mapping[str, Choice], architecture: architecture_pb2.Architecture
    ) -> None:
        message = functools.reduce(getattr, self._message, architecture)
        setattr(message, self._name, values.get(self._name, self._values[0]))

    def read(self, architecture: architecture_pb2.Architecture) -> Mapping[str, Choice]:
        message = functools.reduce(getattr, self._message, architecture)
        value = getattr(message, self._name)
        return {self._name: decimal(value) if isinstance(value, float) else value}


def repeats_part(
    base: architecture_pb2.Architecture, space: str, pyramid: str, repeats: int | Sequence[int]
) -> Part:
    """Returns the part that chooses how often a pyramid's cell is repeated.

    Args:
      space: whose choices these are, for errors.
      pyramid: its field in FeaturePyramid.
      repeats: one number, or those to choose from.

    Raises ConfigError for less than one, and where the base's `exit` comes after the last repeat.
    """
    if isinstance(repeats, int):
        check_at_least(space, "repeats", repeats, 1)
        repeats = (repeats,)
    check_positive(space, "repeats", repeats)
    # A trial cut at an exit that it does not reach could not be built.
    if base.exit > min(repeats):
        raise ConfigError(
            f"{space} search space: repeats is {list(repeats)}; use {base.exit} or more, as the "
            "architecture's exit"
        )
    return FieldPart(f"feature_pyramid.{pyramid}.repeats", repeats)


class InputPart(Part):
    """The size of the images: a decision where there are several, else simply set.

    Of two sizes the one that is no higher and no wider than the other counts as the narrower: the
    paper of SM-NAS does not say whether it pruned by them, but both time and accuracy grow with
    them.
    """

    fields = ("input",)

    def __init__(self, name: str, sizes: Mapping[Choice, tuple[int, int]]) -> None:
        """Args:
        name: of the decision.
        sizes: (height, width) in pixels by choice; at least one.
        """
        self._name = name
        self._sizes = dict(sizes)

    def decisions(self, first: int) -> list[Decision]:
        if len(self._sizes) == 1:
            return []
        return [Decision(self._name, tuple(self._sizes), order=self._within)]

    def _within(self, choice: Choice, other: Choice) -> bool:
        return all(map(operator.le, self._sizes[choice], self._sizes[other]))

    def write(
        self, values: Mapping[str, Choice], architecture: architecture_pb2.Architecture
    ) -> None:
        choice = values.get(self._name, next(iter(self._sizes)))
        architecture.input.height, architecture.input.width = self._sizes[choice]

    def read(self, architecture: architecture_pb2.Architecture) -> Mapping[str, Choice]:
        if len(self._sizes) == 1:
            return {}
        size = (architecture.input.height, architecture.input.width)
        known = {size: choice for choice, size in self._sizes.items()}
        return {self._name: known.get(size, "x".join(map(str, size)))}


def scale_parts(
    space: str,
    depth_multipliers: Sequence[float] = (),
    image_sizes: Sequence[int] = (),
    inputs: Sequence[tuple[int, int]] = (),
) -> list[Part]:
    """Returns the parts that scale a whole network; what is left out stays as in the base.

    Args:
      space: whose choices these are, for errors.
      depth_multipliers: factors on the widths of backbone and pyramid, above 0.
      image_sizes: sides of square images in pixels.
      inputs: (height, width) of images in pixels, in place of `image_sizes`.

    Raises ConfigError for values that no network can have.
    """
    parts: list[Part] = []
    if depth_multipliers:
        multipliers = [decimal(multiplier) for multiplier in depth_multipliers]
        check_positive(space, "depth_multipliers", multipliers)
        parts.append(FieldPart("depth_multiplier", multipliers))
    if image_sizes and inputs:
        raise ConfigError(f"{space} search space: give either image_sizes or inputs")
    if image_sizes:
        check_positive(space, "image_sizes", image_sizes)
        parts.append(InputPart("image_size", {side: (side, side) for side in image_sizes}))
    if inputs:
        check(space, "inputs", inputs, lambda size: min(size) > 0, "positive heights and widths")
        parts.append(
            InputPart("input", {f"{height}x{width}": (height, width) for height, width in inputs})
        )
    return parts

"""The choices that cells of MnasFPN and NAS-FPN share: merged features and their levels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mnasdet.config_checks import architecture as architecture_checks
from mnasdet.errors import ConfigError, UserError
from mnasdet.protos import architecture_pb2
from mnasdet.search_spaces.space import Choice, Decision, Table

# Stands for an input that is not there, in the places after the second.
NONE = "none"


@dataclass(frozen=True)
class Merge:
    """A block or merging cell: `name` prefixes its decisions, `inputs` ascend."""

    name: str
    inputs: list[Any]
    level: Any


@dataclass(frozen=True)
class Cell:
    """The decisions on inputs and levels: internal merges at any of some levels, then one output a
    level in any order of levels.

    Inputs have no order: sums have none, and with two inputs the levels decide which one gates (of
    one level, the first). They ascend, each narrowed by the one before, and `NONE` follows only
    itself, so every set of 2 to `max_inputs` features is exactly one list of tokens.

    Attributes:
      kind: what the architecture calls a merge, "block" or "cell".
      levels: of the incoming features and of the outputs, finest first.
      num_internal: merges that are no output.
      internal_levels: what those may choose.
      max_inputs: most inputs of a merge.
      fills: nobody needs an internal merge that nothing reads, so that architectures with fewer
        internal merges belong to the space too.
    """

    kind: str
    levels: tuple[int, ...]
    num_internal: int
    internal_levels: tuple[int, ...]
    max_inputs: int = 2
    fills: bool = False

    @property
    def _internal(self) -> range:
        return range(len(self.levels), len(self.levels) + self.num_internal)

    @property
    def _outputs(self) -> range:
        return range(self._internal.stop, self._internal.stop + len(self.levels))

    def decisions(self, first: int, own: Callable[[str], list[Decision]]) -> list[Decision]:
        """Returns the decisions in their order.

        Args:
          first: index of the first one in the space.
          own: what else is decided of a merge, by its name.
        """
        decisions: list[Decision] = []
        for index in self._internal:
            name = self._name(index)
            decisions += self._input_decisions(index, first + len(decisions))
            decisions += [Decision(f"{name}/level", self.internal_levels), *own(name)]
        decisions += self._order_decisions(first + len(decisions))
        for index in self._outputs:
            decisions += self._input_decisions(index, first + len(decisions))
            decisions += own(self._name(index))
        return decisions

    def merges(self, values: Mapping[str, Any]) -> Iterator[Merge]:
        """Yields all merges of the decisions' values."""
        # The last output has no decision: it takes the level that is left.
        levels_left = list(self.levels)
        for index in (*self._internal, *self._outputs):
            name = self._name(index)
            level = values.get(f"{name}/level", levels_left[0])
            if index in self._outputs:
                levels_left.remove(level)
            inputs = [values[f"{name}/input_{place}"] for place in self._input_places(index)]
            yield Merge(name, [index for index in inputs if index != NONE], level)

    def read(
        self, merges: Sequence[Any], gated: Callable[[Any], bool], where: str
    ) -> Iterator[Merge]:
        """Inverts `merges` for those of an architecture, in their order.

        Args:
          merges: messages with `input` and `level`.
          gated: whether one input gates the other.
          where: what error messages start with.

        Raises UserError for merges that no values describe.
        """
        self._check_outputs(merges, where)
        own_first_output = len(merges)
        num_added = self._outputs.stop - len(self.levels) - own_first_output
        levels = [*self.levels, *(merge.level for merge in merges)]

        def place(index: int) -> int:
            """Returns a feature's index in the space, where added merges follow the architecture's
            own.
            """
            return index + num_added * (index >= own_first_output)

        for index, merge in enumerate(merges, start=len(self.levels)):
            at = f"{where}: {self.kind} {index}"
            inputs = self._ascending_inputs(merge, levels[:index], gated(merge), at)
            yield Merge(self._name(place(index)), [place(i) for i in inputs], merge.level)

    def values(self, merge: Merge) -> dict[str, Choice]:
        """Returns the values of the decisions on a merge's inputs and level."""
        index = int(merge.name.rpartition("_")[2])
        values: dict[str, Choice] = {f"{merge.name}/level": merge.level}
        for place in self._input_places(index):
            value = merge.inputs[place] if place < len(merge.inputs) else NONE
            values[f"{merge.name}/input_{place}"] = value
        return values

    def _name(self, index: int) -> str:
        return f"{self.kind}_{index}"

    def _input_places(self, index: int) -> range:
        """Returns the places of a merge's inputs; there are only `index` features before it."""
        return range(min(self.max_inputs, index))

    def _input_decisions(self, index: int, first: int) -> list[Decision]:
        decisions: list[Decision] = []
        for place in self._input_places(index):
            # The first leaves one above it; inputs after the second may be missing.
            above = range(place, index - 1 if place == 0 else index)
            choices = (NONE, *above) if place >= 2 else tuple(above)
            narrowed: tuple[tuple[int, Table], ...] = ()
            if decisions:
                table = tuple(tuple(_follows(a, b) for b in choices) for a in decisions[-1].choices)
                narrowed = ((first + place - 1, table),)
            decisions.append(Decision(f"{self._name(index)}/input_{place}", choices, narrowed))
        return decisions

    def _order_decisions(self, first: int) -> list[Decision]:
        """Returns the permutation of the output levels without the last one, which is left over."""
        different = tuple(tuple(a != b for b in self.levels) for a in self.levels)
        return [
            Decision(
                f"{self._name(index)}/level",
                self.levels,
                tuple((first + earlier, different) for earlier in range(place)),
            )
            for place, index in enumerate(self._outputs[:-1])
        ]

    def _check_outputs(self, merges: Sequence[Any], where: str) -> None:
        num_outputs = len(self.levels)
        least = num_outputs if self.fills else num_outputs + self.num_internal
        if not least <= len(merges) <= num_outputs + self.num_internal:
            raise UserError(
                f"{where}: {len(merges)} {self.kind}s, but the search space has {num_outputs} "
                f"output {self.kind}s and {'at most ' * self.fills}{self.num_internal} others"
            )
        outputs = [merge.level for merge in merges[-num_outputs:]]
        if sorted(outputs) != list(self.levels):
            raise UserError(
                f"{where}: levels {outputs} of the last {self.kind}s; use each of "
                f"{list(self.levels)} once"
            )

    def _ascending_inputs(
        self, merge: Any, levels: Sequence[int], gated: bool, where: str
    ) -> list[int]:
        """Returns a merge's inputs as tokens order them; `levels` are those of all features before
        it.
        """
        inputs = list(merge.input)
        distinct = set(inputs)
        if not (
            2 <= len(inputs) <= self.max_inputs
            and len(distinct) == len(inputs)
            and distinct <= set(range(len(levels)))
        ):
            number = "two" if self.max_inputs == 2 else f"2 to {self.max_inputs}"
            raise UserError(
                f"{where}: input {inputs}; use {number} different ones of 0 to {len(levels) - 1}"
            )
        first, second, *_ = inputs
        # Of different levels, the levels tell which gates, whatever the order; see the class.
        if gated and first > second and levels[first] == levels[second]:
            raise UserError(f"{where}: of two inputs of one level only the lower index can gate")
        return sorted(inputs)


def levels_of(base: architecture_pb2.Architecture, space: str) -> tuple[int, ...]:
    """Returns the levels that a base predicts from, finest first; ConfigError for less than two."""
    levels = tuple(architecture_checks.levels(base))
    if not levels:
        raise ConfigError(
            f"{space} search space: the architecture has no feature_pyramid; use a detector's"
        )
    if len(levels) < 2:
        raise ConfigError(
            f"{space} search space: levels {levels[0]} to {levels[-1]}; a cell merges two "
            "features, so use at least 2 levels"
        )
    return levels


def pyramid_of(
    architecture: architecture_pb2.Architecture, kind: str, levels: Sequence[int]
) -> Any:
    """Returns the architecture's feature pyramid, by its field in FeaturePyramid.

    A pyramid of another kind is replaced by a new one with these levels.
    """
    pyramid = getattr(architecture.feature_pyramid, kind)
    if not architecture.feature_pyramid.HasField(kind):
        pyramid.min_level, pyramid.max_level = levels[0], levels[-1]
    return pyramid


def _follows(earlier: Choice, later: Choice) -> bool:
    if isinstance(earlier, int) and isinstance(later, int):
        return later > earlier
    return later == NONE

"""The search space of MnasFPN (Chen et al., 2019, section 3.3 and table 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from mnasdet.errors import ConfigError, UserError
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces.space import Choice, Decision, SearchSpace

# Table 2.
CHANNELS = (16, 32, 48, 64, 80, 96)
EXPANDED_CHANNELS = (16, 32, 64, 96, 128, 256, 512)
KERNEL_SIZES = (3, 5, 7)

_MERGES = ("add", "squeeze_excite")

# Fields of an Architecture that decisions choose or that say nothing of the network.
_NOT_COMPARED = (
    "name",
    "source",
    "image_size",
    "feature_pyramid.mnasfpn.channels",
    "feature_pyramid.mnasfpn.block",
)


class MnasFpnSpace(SearchSpace):
    """One cell: internal blocks at any level, then one output block a level.

    The decisions are C; for every internal block two inputs, level, merge, F and kernel size; the
    order of the output levels; for every output block the same without its level. The paper gives
    the choices but not their order.

    The two inputs of a block have no order: additions have none, and the levels decide which
    input gates (of one level, the lower index). `input_0` is always the lower index and narrows
    `input_1` to what lies above it. So every unordered pair is one pair of tokens, and the
    cardinality is appendix A.1's 2^9 4^5 4! prod C(i+4, 2) 3^9 6 7^9 = 1.87e32 (not the 1e31
    printed there).
    """

    def __init__(
        self,
        base: architecture_pb2.Architecture,
        *,
        channels: Sequence[int] = CHANNELS,
        expanded_channels: Sequence[int] = EXPANDED_CHANNELS,
        kernel_sizes: Sequence[int] = KERNEL_SIZES,
        repeats: int = 3,
        num_internal_blocks: int = 5,
    ) -> None:
        """Args:
          base: all but the cell: backbone, box predictor, anchors, and the pyramid's levels.
          channels: choices of C.
          expanded_channels: choices of F.
          kernel_sizes: choices of k, odd.
          repeats: how often a sampled cell is applied.
          num_internal_blocks: blocks that are no output.

        Raises ConfigError for a value that no network can have.
        """
        _check("channels", channels)
        _check("expanded_channels", expanded_channels)
        _check("kernel_sizes", kernel_sizes, odd=True)
        if repeats < 1:
            raise ConfigError(f"mnasfpn search space: repeats is {repeats}; use 1 or more")
        if num_internal_blocks < 0:
            raise ConfigError(
                f"mnasfpn search space: num_internal_blocks is {num_internal_blocks}; use 0 or more"
            )
        self.base = base
        self.repeats = repeats
        self.num_internal_blocks = num_internal_blocks
        pyramid = base.feature_pyramid.mnasfpn
        self.levels = tuple(range(pyramid.min_level, pyramid.max_level + 1))
        if len(self.levels) < 2:
            raise ConfigError(
                f"mnasfpn search space: levels {pyramid.min_level} to {pyramid.max_level}; a "
                "block merges two features, so use at least 2 levels"
            )
        first_output = len(self.levels) + num_internal_blocks
        self._outputs = range(first_output, first_output + len(self.levels))
        super().__init__(
            self._decisions(tuple(channels), tuple(expanded_channels), tuple(kernel_sizes))
        )

    def _decisions(
        self,
        channels: tuple[int, ...],
        expanded_channels: tuple[int, ...],
        kernel_sizes: tuple[int, ...],
    ) -> list[Decision]:
        def merge(index: int) -> list[Decision]:
            return [
                Decision(f"block_{index}/merge", _MERGES),
                Decision(f"block_{index}/expanded_channels", expanded_channels),
                Decision(f"block_{index}/kernel_size", kernel_sizes),
            ]

        decisions = [Decision("channels", channels)]
        for index in range(len(self.levels), self._outputs.start):
            decisions += _input_decisions(index, first=len(decisions))
            decisions += [Decision(f"block_{index}/level", self.levels), *merge(index)]
        decisions += self._order_decisions(first=len(decisions))
        for index in self._outputs:
            decisions += [*_input_decisions(index, first=len(decisions)), *merge(index)]
        return decisions

    def _order_decisions(self, first: int) -> list[Decision]:
        """The permutation of the output levels, without the last one, which is what is left."""
        different = tuple(tuple(a != b for b in self.levels) for a in self.levels)
        return [
            Decision(
                f"block_{index}/level",
                self.levels,
                tuple((first + earlier, different) for earlier in range(place)),
            )
            for place, index in enumerate(self._outputs[:-1])
        ]

    def _decode(self, values: Mapping[str, Any]) -> architecture_pb2.Architecture:
        architecture = architecture_pb2.Architecture()
        architecture.CopyFrom(self.base)
        architecture.ClearField("name")
        architecture.ClearField("source")
        pyramid = architecture.feature_pyramid.mnasfpn
        pyramid.channels = values["channels"]
        pyramid.repeats = self.repeats
        del pyramid.block[:]
        levels_left = list(self.levels)
        for index in range(len(self.levels), self._outputs.stop):
            prefix = f"block_{index}"
            level = values.get(f"{prefix}/level", levels_left[0])
            if index in self._outputs:
                levels_left.remove(level)
            pyramid.block.add(
                input=[values[f"{prefix}/input_0"], values[f"{prefix}/input_1"]],
                level=level,
                merge=values[f"{prefix}/merge"].upper(),
                expanded_channels=values[f"{prefix}/expanded_channels"],
                kernel_size=values[f"{prefix}/kernel_size"],
            )
        return architecture

    def _encode(self, architecture: architecture_pb2.Architecture) -> Mapping[str, Choice]:
        """A cell with fewer internal blocks is filled up behind its own with the first choice of
        everything; no output needs those blocks, so the network stays the same."""
        self._check_fits(architecture)
        pyramid = architecture.feature_pyramid.mnasfpn
        own_first_output = len(pyramid.block)
        num_added = self._outputs.stop - own_first_output - len(self.levels)

        def place(index: int) -> int:
            return index + num_added * (index >= own_first_output)

        values: dict[str, Choice] = {d.name: d.choices[0] for d in self.decisions}
        values["channels"] = pyramid.channels
        levels = [*self.levels, *(block.level for block in pyramid.block)]
        for index, block in enumerate(pyramid.block, start=len(self.levels)):
            first, second = _ascending_inputs(
                block, levels[:index], f"architecture {architecture.name!r}: block {index}"
            )
            prefix = f"block_{place(index)}"
            values[f"{prefix}/input_0"] = place(first)
            values[f"{prefix}/input_1"] = place(second)
            values[f"{prefix}/level"] = block.level
            values[f"{prefix}/merge"] = _merge_name(block)
            values[f"{prefix}/expanded_channels"] = block.expanded_channels
            values[f"{prefix}/kernel_size"] = block.kernel_size
        return values

    def _check_fits(self, architecture: architecture_pb2.Architecture) -> None:
        """Raises UserError where the architecture differs in what this space does not choose."""
        name = f"architecture {architecture.name!r}"
        pyramid = architecture.feature_pyramid.mnasfpn
        expected = architecture_pb2.Architecture()
        expected.CopyFrom(self.base)
        expected.feature_pyramid.mnasfpn.repeats = self.repeats
        difference = _difference(expected, architecture)
        if difference:
            raise UserError(f"{name}: {difference} in the search space")
        num_outputs = len(self.levels)
        if not num_outputs <= len(pyramid.block) <= num_outputs + self.num_internal_blocks:
            raise UserError(
                f"{name}: {len(pyramid.block)} blocks, but the search space has {num_outputs} "
                f"output blocks and at most {self.num_internal_blocks} others"
            )
        outputs = [block.level for block in pyramid.block[-num_outputs:]]
        if sorted(outputs) != list(self.levels):
            raise UserError(
                f"{name}: levels {outputs} of the last blocks; use each of {list(self.levels)} once"
            )


def from_config(
    config: search_pb2.MnasFpnSpaceConfig, base: architecture_pb2.Architecture
) -> MnasFpnSpace:
    """Lists that the config leaves empty are the paper's."""
    return MnasFpnSpace(
        base,
        channels=config.channels or CHANNELS,
        expanded_channels=config.expanded_channels or EXPANDED_CHANNELS,
        kernel_sizes=config.kernel_sizes or KERNEL_SIZES,
        repeats=config.repeats,
        num_internal_blocks=config.num_internal_blocks,
    )


def _check(field: str, values: Sequence[int], odd: bool = False) -> None:
    wrong = [value for value in values if value < 1 or (odd and value % 2 == 0)]
    if wrong or len(set(values)) < len(values):
        raise ConfigError(
            f"mnasfpn search space: {field} is {list(values)}; use different positive "
            f"{'odd ' if odd else ''}numbers"
        )


def _input_decisions(index: int, first: int) -> list[Decision]:
    """Two of the features before block `index`, the lower index first."""
    lower, upper = range(index - 1), range(1, index)
    above = tuple(tuple(j > i for j in upper) for i in lower)
    return [
        Decision(f"block_{index}/input_0", tuple(lower)),
        Decision(f"block_{index}/input_1", tuple(upper), ((first, above),)),
    ]


def _ascending_inputs(
    block: architecture_pb2.MnasFpn.Block, levels: Sequence[int], where: str
) -> list[int]:
    """The block's inputs as tokens order them; `levels` are those of all features before it."""
    inputs = list(block.input)
    if len(set(inputs)) != 2 or len(inputs) != 2 or not set(inputs) <= set(range(len(levels))):
        raise UserError(
            f"{where}: input {inputs}; use two different ones of 0 to {len(levels) - 1}"
        )
    first, second = inputs
    if first > second and levels[first] == levels[second] and _merge_name(block) != "add":
        raise UserError(f"{where}: of two inputs of one level only the lower index can gate")
    return sorted(inputs)


def _merge_name(block: architecture_pb2.MnasFpn.Block) -> str:
    return architecture_pb2.MnasFpn.Merge.Name(block.merge).lower()


def _difference(base: Message, other: Message, path: str = "") -> str:
    """The first field that is not searched and differs, "path is value, but base value"; or ""."""
    for field in base.DESCRIPTOR.fields:
        name = path + field.name
        if name in _NOT_COMPARED:
            continue
        expected, value = getattr(base, field.name), getattr(other, field.name)
        if isinstance(expected, Message):
            if field.containing_oneof and base.HasField(field.name) != other.HasField(field.name):
                return f"{name} is not what is"
            difference = _difference(expected, value, f"{name}.")
            if difference:
                return difference
        elif expected != value:
            return f"{name} is {value}, but {expected}"
    return ""

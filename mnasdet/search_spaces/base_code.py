"""SM-NAS's second search space: the depth and the widths of a residual backbone, as strings such as
"basicblock_64_1-21-21-12" (Yao et al., 2020, section 3.2.2)."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mnasdet import base_codes
from mnasdet.base_codes import DOUBLES, FIRST_LEVEL, KEEPS, NUM_STAGES, BaseCodeNetwork
from mnasdet.errors import ConfigError, UserError
from mnasdet.protos import architecture_pb2, hyperparams_pb2, search_pb2
from mnasdet.search_spaces.choices import check, check_at_least, check_positive
from mnasdet.search_spaces.composed import ComposedSpace, Part
from mnasdet.search_spaces.space import Choice, Decision, Table, Tokens

# Section 3.2.2.
BASES = (48, 56, 64, 72)
PYRAMID_CHANNELS = (128, 256, 512)

# The paper prints neither of these, but the size of its space, 5.0e12. With 1 to 28 blocks a stage
# and 2 to 4 doublings there are 5,017,632,849,600 networks of one block. ResNet-101 has up to 23
# blocks a stage, and the paper's results up to 15 blocks and three doublings.
MIN_BLOCKS = (1,) * NUM_STAGES
MAX_BLOCKS = (28,) * NUM_STAGES
MIN_DOUBLINGS = 2
MAX_DOUBLINGS = 4

# ResNets with basic blocks; the deeper ones have bottlenecks.
_BASIC_DEPTHS = (10, 18, 34)

# The paper counts stages from the image on: stage 1 is the first convolution, at stride 2.
_STAGES = range(FIRST_LEVEL, FIRST_LEVEL + NUM_STAGES)

_BASE = "backbone/base"
_DOUBLINGS = "backbone/doublings"
_PYRAMID_CHANNELS = "pyramid_channels"

# The fields whose widths follow the pyramid's, where they are there.
_HEADS = (
    "region_proposal.channels",
    "box_predictor.weight_shared_convolutional_box_predictor.depth",
)


class BaseCodePart(Part):
    """The string of a backbone, and the width of the pyramid.

    The decisions are the base; the width of the pyramid; how many blocks of every stage double the
    width; for every stage its number of blocks and which of them double, from the last one on. Each
    string has exactly one list of tokens, and different strings are different networks.

    With the defaults the cardinality is 4 * 3 * sum over all lengths of the four stages, 1 to 28
    each, of C(n, 2) + C(n, 3) + C(n, 4), where n is the number of all blocks: 5,017,632,849,600.
    The paper has "about 5.0e12", and leaves open of which ranges.
    """

    def __init__(
        self,
        base: architecture_pb2.Architecture,
        *,
        bases: Sequence[int] = BASES,
        pyramid_channels: Sequence[int] = PYRAMID_CHANNELS,
        min_blocks: Sequence[int] = MIN_BLOCKS,
        max_blocks: Sequence[int] = MAX_BLOCKS,
        min_doublings: int = MIN_DOUBLINGS,
        max_doublings: int = MAX_DOUBLINGS,
        hyperparams: hyperparams_pb2.Hyperparams | None = None,
        space: str = "base_code",
    ) -> None:
        """Args:
          base: its backbone, a BaseCode or a ResNet, gives the block; its pyramid and heads give
            the widths that change with the pyramid's.
          bases: channels after the stem, even.
          pyramid_channels: widths of the pyramid; without effect where the base has none.
          min_blocks: of the stages at strides 4, 8, 16 and 32; `max_blocks` likewise.
          min_doublings: of the width in all stages together; `max_doublings` likewise.
          hyperparams: of the backbone, in place of the base's.
          space: whose choices these are, for errors.

        Raises ConfigError for a value that no network can have.
        """
        check(space, "bases", bases, lambda v: v > 0 and v % 2 == 0, "positive even numbers")
        check_positive(space, "pyramid_channels", pyramid_channels)
        check_at_least(space, "min_doublings", min_doublings, 0)
        check_at_least(space, "max_doublings", max_doublings, min_doublings)
        for name, blocks in (("min_blocks", min_blocks), ("max_blocks", max_blocks)):
            if len(blocks) != NUM_STAGES or min(blocks) < 1:
                raise ConfigError(
                    f"{space} search space: {name} is {list(blocks)}; use {NUM_STAGES} positive "
                    "numbers, one for each of the strides 4, 8, 16 and 32"
                )
        if any(map(operator.gt, min_blocks, max_blocks)):
            raise ConfigError(
                f"{space} search space: min_blocks is {list(min_blocks)}, max_blocks "
                f"{list(max_blocks)}; use no smaller ones for max_blocks"
            )
        if min_doublings > sum(max_blocks):
            raise ConfigError(
                f"{space} search space: min_doublings is {min_doublings}; use {sum(max_blocks)} or "
                "less, the sum of max_blocks"
            )
        block = block_of(base.backbone)
        if block is None:
            raise ConfigError(
                f"{space} search space: the backbone is "
                f"{base.backbone.WhichOneof('backbone_oneof')}; use base_code or resnet, whose "
                "block the space takes"
            )
        self._block = block
        self._bases = tuple(bases)
        self._lengths = [
            range(least, most + 1) for least, most in zip(min_blocks, max_blocks, strict=True)
        ]
        self._doublings = range(min_doublings, max_doublings + 1)
        self._hyperparams = hyperparams
        self._pyramid = _pyramid_path(base)
        self._widths = _widths(base, self._pyramid, pyramid_channels) if self._pyramid else {}
        # A width that the base chooses must not count as a difference.
        chosen = (self._pyramid, *_HEADS) if len(self._widths) > 1 else ()
        self.fields = ("backbone.base_code.code", *filter(None, chosen))
        # How many blocks of each stage double the width, in all possible ways.
        self._distributions = [
            counts
            for counts in itertools.product(range(max_doublings + 1), repeat=NUM_STAGES)
            if sum(counts) in self._doublings and all(map(operator.le, counts, max_blocks))
        ]
        self._most_doublings = [max(counts) for counts in zip(*self._distributions, strict=True)]

    def decisions(self, first: int) -> list[Decision]:
        decisions = []
        if len(self._bases) > 1:
            decisions.append(Decision(_BASE, self._bases))
        if len(self._widths) > 1:
            decisions.append(Decision(_PYRAMID_CHANNELS, tuple(self._widths), order=operator.le))
        distribution = first + len(decisions)
        decisions.append(Decision(_DOUBLINGS, tuple(map(_joined, self._distributions))))
        for index in range(NUM_STAGES):
            decisions += self._stage_decisions(index, distribution, first + len(decisions))
        return decisions

    def _stage_decisions(self, index: int, distribution: int, first: int) -> Iterator[Decision]:
        """Yields the decisions of one stage: its blocks, and the doubling ones from the last on.

        Counted from the last, only one of them depends on the number of blocks, so that few states
        have to be told apart.

        Args:
          index: of the stage, from 0.
          distribution: index of the decision on the doublings; `first`: of the first decision here.
        """
        lengths = self._lengths[index]
        counts = [d[index] for d in self._distributions]
        enough: Table = tuple(tuple(n >= count for n in lengths) for count in counts)
        yield Decision(f"{_name(index)}/blocks", tuple(lengths), ((distribution, enough),))
        places = range(lengths[-1] + 1)  # 0: none is left.
        for number in range(1, max(counts) + 1):
            # The earlier ones need places, too.
            left: Table = tuple(
                tuple(p > count - number if number <= count else p == 0 for p in places)
                for count in counts
            )
            before: Table
            if number == 1:
                before = tuple(tuple(p <= n for p in places) for n in lengths)
            else:
                before = tuple(tuple(p < later or p == 0 for p in places) for later in places)
            yield Decision(
                f"{_name(index)}/doubled_{number}",
                tuple(places),
                ((distribution, left), (first + number - 1, before)),
            )

    def write(self, values: Mapping[str, Any], architecture: architecture_pb2.Architecture) -> None:
        architecture.backbone.base_code.code = str(self.network(values))
        if self._hyperparams is not None:
            architecture.backbone.conv_hyperparams.CopyFrom(self._hyperparams)
        if self._widths:
            channels = values.get(_PYRAMID_CHANNELS, next(iter(self._widths)))
            for path, width in self._widths[channels].items():
                message, field = _message(architecture, path)
                setattr(message, field, width)

    def read(self, architecture: architecture_pb2.Architecture) -> Mapping[str, Choice]:
        network = base_codes.parse(architecture.backbone.base_code.code)
        if network.block != self._block:
            raise UserError(
                f"architecture {architecture.name!r}: the block is {network.block}, but "
                f"{self._block} in the search space"
            )
        values = self.values(network)
        if len(self._widths) > 1:
            assert self._pyramid
            channels = _get(architecture, self._pyramid)
            values[_PYRAMID_CHANNELS] = channels
            for path, width in self._widths.get(channels, {}).items():
                if _get(architecture, path) != width:
                    raise UserError(
                        f"architecture {architecture.name!r}: {path} is "
                        f"{_get(architecture, path)}, but {width} in the search space beside "
                        f"{self._pyramid} {channels}"
                    )
        return values

    def network(self, values: Mapping[str, Any]) -> BaseCodeNetwork:
        """Returns the network of the decisions' values, by name."""
        stages = []
        for index in range(NUM_STAGES):
            blocks = values[f"{_name(index)}/blocks"]
            doubled = {v for k, v in values.items() if k.startswith(f"{_name(index)}/doubled_")}
            stages.append(tuple(DOUBLES if p in doubled else KEEPS for p in range(1, blocks + 1)))
        return BaseCodeNetwork(self._block, values.get(_BASE, self._bases[0]), tuple(stages))

    def values(self, network: BaseCodeNetwork) -> dict[str, Choice]:
        """Inverts `network`: returns the values of all decisions but the pyramid's."""
        counts = [stage.count(DOUBLES) for stage in network.stages]
        values: dict[str, Choice] = {_BASE: network.base, _DOUBLINGS: _joined(counts)}
        for index, stage in enumerate(network.stages):
            values[f"{_name(index)}/blocks"] = len(stage)
            places = [p for p, digit in enumerate(stage, start=1) if digit == DOUBLES][::-1]
            for number in range(1, self._most_doublings[index] + 1):
                place = places[number - 1] if number <= len(places) else 0
                values[f"{_name(index)}/doubled_{number}"] = place
        return values

    def steps(self, network: BaseCodeNetwork) -> dict[str, list[BaseCodeNetwork]]:
        """Returns the networks of the space that are one step away, by the kind of the step.

        Each kind that has any: insert or delete a block that keeps the width, move a doubling to
        another block, add or remove a doubling, move a block across the border of two stages, take
        another base. The paper names none; vega's `sm_nas` inserts, deletes and swaps.
        """
        base = [BaseCodeNetwork(self._block, b, network.stages) for b in self._bases]
        changed = {"base": [other for other in base if other != network]}
        for kind, change in _STEPS.items():
            # Different places often give the same string: "11" is "1" with a block before or after.
            stages = dict.fromkeys(change(network.stages))
            changed[kind] = [
                BaseCodeNetwork(self._block, network.base, one)
                for one in stages
                if self._holds(one) and one != network.stages
            ]
        return {kind: networks for kind, networks in changed.items() if networks}

    def _holds(self, stages: Sequence[Sequence[int]]) -> bool:
        lengths = all(
            len(stage) in allowed for stage, allowed in zip(stages, self._lengths, strict=True)
        )
        return lengths and sum(stage.count(DOUBLES) for stage in stages) in self._doublings


class BaseCodeSpace(ComposedSpace):
    """The space of a `BaseCodePart` and of parts that choose nothing of its backbone."""

    def __init__(self, base: architecture_pb2.Architecture, parts: Sequence[Part]) -> None:
        """Args:
        base: all that no part writes.
        parts: the first one is a BaseCodePart.
        """
        super().__init__(base, parts)
        own = parts[0]
        assert isinstance(own, BaseCodePart)
        self._own = own
        self._networks: dict[Tokens, BaseCodeNetwork] = {}
        self._other = [
            index
            for index, decision in enumerate(self.decisions)
            if not decision.name.startswith("backbone/")
        ]

    @property
    def has_order(self) -> bool:
        return True

    def precedes(self, a: Sequence[int], b: Sequence[int]) -> bool:
        """Returns whether `a` is no deeper and no wider in any stage, as `no_larger` says."""
        others_agree = all(self._no_larger(i, a[i], b[i]) for i in self._other)
        return others_agree and no_larger(self._network(tuple(a)), self._network(tuple(b)))

    def _network(self, tokens: Tokens) -> BaseCodeNetwork:
        # A search compares each of its trials with many candidates.
        if tokens not in self._networks:
            self._networks[tokens] = self._own.network(self._values(tokens))
        return self._networks[tokens]

    def mutate(self, tokens: Sequence[int], rng: np.random.Generator) -> Tokens:
        """Takes one step of `BaseCodePart.steps`, or changes one other decision.

        Each kind of step is as likely as any other, and within it each network.

        Raises UserError for tokens of another space, and where the space has no others.
        """
        self.validate(tokens)
        values = self._values(tokens)
        steps: list[list[Any]] = list(self._own.steps(self._own.network(values)).values())
        for index in self._other:
            decision = self.decisions[index]
            others = [c for token, c in enumerate(decision.choices) if token != tokens[index]]
            if others:
                steps.append([{decision.name: choice} for choice in others])
        if not steps:
            raise UserError("no decision has another choice; give the search space more of them")
        kind = steps[int(rng.integers(len(steps)))]
        step = kind[int(rng.integers(len(kind)))]
        values |= self._own.values(step) if isinstance(step, BaseCodeNetwork) else step
        return tuple(decision.choices.index(values[decision.name]) for decision in self.decisions)

    def _values(self, tokens: Sequence[int]) -> dict[str, Choice]:
        return {d.name: d.choices[t] for d, t in zip(self.decisions, tokens, strict=True)}


def no_larger(a: BaseCodeNetwork, b: BaseCodeNetwork) -> bool:
    """Returns whether `a` is no deeper and no wider than `b` in every stage.

    Both have the same block; `b` has no smaller base, and in every stage no fewer blocks. Counted
    from the end of a stage, the width has been doubled no less often before each block of `b`.

    This is a partial order, and `b` has no fewer weights and multiply-adds: `b` is made of `a` by
    blocks in front of stages, doublings at the end or earlier, and a larger base.
    """
    if a.block != b.block or a.base > b.base:
        return False
    stages = zip(_doublings_so_far(a), _doublings_so_far(b), strict=True)
    return all(
        len(ours) <= len(theirs)
        # The longer stage has blocks in front that the other has not.
        and all(map(operator.le, reversed(ours), reversed(theirs)))
        for ours, theirs in stages
    )


def _doublings_so_far(network: BaseCodeNetwork) -> list[list[int]]:
    """Returns for each block of each stage how often the width was doubled, the block included."""
    counts = itertools.accumulate(d == DOUBLES for stage in network.stages for d in stage)
    return [[int(next(counts)) for _ in stage] for stage in network.stages]


def block_of(backbone: architecture_pb2.Backbone) -> str | None:
    """Returns the block of base codes that a backbone is made of; None for another kind."""
    match backbone.WhichOneof("backbone_oneof"):
        case "base_code":
            return base_codes.parse(backbone.base_code.code).block
        case "resnet" if backbone.resnet.depth in _BASIC_DEPTHS:
            return "basicblock"
        case "resnet":
            return "bottleneck" if backbone.resnet.groups == 1 else "Xbottleneck"
    return None


def from_config(
    config: search_pb2.BaseCodeSpaceConfig,
    base: architecture_pb2.Architecture,
    space: str = "base_code",
) -> list[Part]:
    """Returns the part of the space "base_code". What the config leaves out is the paper's."""
    part = BaseCodePart(
        base,
        bases=config.bases or BASES,
        pyramid_channels=config.pyramid_channels or PYRAMID_CHANNELS,
        min_blocks=config.min_blocks or MIN_BLOCKS,
        max_blocks=config.max_blocks or MAX_BLOCKS,
        min_doublings=config.min_doublings,
        max_doublings=config.max_doublings,
        hyperparams=config.conv_hyperparams if config.HasField("conv_hyperparams") else None,
        space=space,
    )
    return [part]


# The blocks of every stage.
_Stages = tuple[tuple[int, ...], ...]


def _inserted(stages: _Stages) -> Iterator[_Stages]:
    for index, stage in enumerate(stages):
        for place in range(len(stage) + 1):
            yield _replaced(stages, {index: (*stage[:place], KEEPS, *stage[place:])})


def _deleted(stages: _Stages) -> Iterator[_Stages]:
    for index, place in _places(stages, KEEPS):
        stage = stages[index]
        yield _replaced(stages, {index: (*stage[:place], *stage[place + 1 :])})


def _doubling_moved(stages: _Stages) -> Iterator[_Stages]:
    for moved, to in itertools.product(_places(stages, DOUBLES), _places(stages, KEEPS)):
        yield _with_digit(_with_digit(stages, moved, KEEPS), to, DOUBLES)


def _doubling_added_or_removed(stages: _Stages) -> Iterator[_Stages]:
    for digit, other in ((KEEPS, DOUBLES), (DOUBLES, KEEPS)):
        for place in _places(stages, digit):
            yield _with_digit(stages, place, other)


def _border_moved(stages: _Stages) -> Iterator[_Stages]:
    for index, (before, after) in enumerate(itertools.pairwise(stages)):
        yield _replaced(stages, {index: before[:-1], index + 1: (before[-1], *after)})
        yield _replaced(stages, {index: (*before, after[0]), index + 1: after[1:]})


# Ways to change a string by one step; the results need not be in the space.
_STEPS: dict[str, Callable[[_Stages], Iterator[_Stages]]] = {
    "insert": _inserted,
    "delete": _deleted,
    "move_doubling": _doubling_moved,
    "doubling": _doubling_added_or_removed,
    "border": _border_moved,
}


def _places(stages: _Stages, digit: int) -> list[tuple[int, int]]:
    """Returns the (stage, block) of all blocks with that digit, both from 0."""
    return [
        (index, place)
        for index, stage in enumerate(stages)
        for place, own in enumerate(stage)
        if own == digit
    ]


def _with_digit(stages: _Stages, place: tuple[int, int], digit: int) -> _Stages:
    index, block = place
    stage = stages[index]
    return _replaced(stages, {index: (*stage[:block], digit, *stage[block + 1 :])})


def _replaced(stages: _Stages, changed: Mapping[int, tuple[int, ...]]) -> _Stages:
    return tuple(changed.get(index, stage) for index, stage in enumerate(stages))


def _pyramid_path(base: architecture_pb2.Architecture) -> str:
    """Returns the path of the pyramid's width; empty where it has none of its own."""
    name = base.feature_pyramid.WhichOneof("feature_pyramid_oneof")
    # SSD's extra layers have a list of widths, and no pyramid before them.
    return f"feature_pyramid.{name}.channels" if name and name != "ssd_layers" else ""


def _widths(
    base: architecture_pb2.Architecture, pyramid: str, choices: Sequence[int]
) -> dict[int, dict[str, int]]:
    """Returns for each width of the pyramid the widths of it and of the heads, by their paths.

    "The channels of the head is adjusted correspondingly" (section 3.2.2) is read as: the
    convolutions on the pyramid change by the same factor; of fully connected layers only the input
    changes. Faster R-CNN's region proposals have 128 channels beside 128 of the pyramid, and its
    layers 1024 as ever.
    """
    own = _get(base, pyramid)
    heads = [path for path in _HEADS if _is_set(base, path)]
    return {
        channels: {
            pyramid: channels,
            **{path: max(round(_get(base, path) * channels / own), 1) for path in heads},
        }
        for channels in choices
    }


def _is_set(architecture: architecture_pb2.Architecture, path: str) -> bool:
    """Returns whether the messages on the way to a field are there."""
    message: Any = architecture
    for name in path.split(".")[:-1]:
        if not message.HasField(name):
            return False
        message = getattr(message, name)
    return True


def _message(architecture: architecture_pb2.Architecture, path: str) -> tuple[Any, str]:
    """Returns the message of a field, and the field's name."""
    *messages, field = path.split(".")
    return functools.reduce(getattr, messages, architecture), field


def _get(architecture: architecture_pb2.Architecture, path: str) -> int:
    return functools.reduce(getattr, path.split("."), architecture)  # type: ignore[arg-type, return-value]


def _name(index: int) -> str:
    """Returns the name of a stage in the names of its decisions."""
    return f"backbone/stage_{_STAGES[index]}"


def _joined(counts: Sequence[int]) -> str:
    return "-".join(map(str, counts))

"""MnasNet's factorised hierarchical search space (Tan et al., 2019, section 4.1)."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mnasdet.errors import ConfigError, UserError
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces.choices import check, check_positive, decimal
from mnasdet.search_spaces.composed import Part, difference
from mnasdet.search_spaces.space import Choice, Decision

# Section 4.1. It lists three operations, while its 432 choices a block need four: the expansions
# are those of the published models.
OPS = ("conv", "separable", "mbconv")
EXPANSIONS = (3, 6)
KERNEL_SIZES = (3, 5)
SE_RATIOS = (0.0, 0.25)
SKIPS = ("pool", "identity", "none")
ALL_SKIPS = (*SKIPS, "average_pool")
WIDTH_FACTORS = (0.75, 1.0, 1.25)
DEPTH_OFFSETS = (-1, 0, 1)

# MobileNetV2 (Sandler et al., 2018, table 2), relative to which the paper searches: stem, then
# channels, layers and stride of every block. Only the first block does not expand.
_STEM_CHANNELS = 32
_MOBILENET_V2 = (
    (16, 1, 1),
    (24, 2, 2),
    (32, 3, 2),
    (64, 4, 2),
    (96, 3, 1),
    (160, 3, 2),
    (320, 1, 1),
)

_MnasNet = architecture_pb2.MnasNet

# The fields of a block that are decided.
_FIELDS = ("op", "kernel_size", "se_ratio", "skip", "channels", "repeats")


class MnasNetPart(Part):
    """Blocks of equal layers, each relative to one of the base's backbone.

    The decisions of every searched block are its operation, kernel size, squeeze and excitation,
    skip, width and depth; strides stay. An mbconv without expansion is "separable".

    Relative to MobileNetV2 the cardinality is 48^7 (2 2 3^5) (2 3^5 2) = 5.5e17: operation, kernel,
    SE and skip; widths, of which the first two blocks have equal ones; depths, of which the first
    and the last block lack 0. With all of them different it would be the paper's 432 a block.
    """

    fields = ("backbone.mnasnet.block",)

    def __init__(
        self,
        base: architecture_pb2.Architecture,
        *,
        ops: Sequence[str] = OPS,
        expansions: Sequence[int] = EXPANSIONS,
        kernel_sizes: Sequence[int] = KERNEL_SIZES,
        se_ratios: Sequence[float] = SE_RATIOS,
        skips: Sequence[str] = SKIPS,
        width_factors: Sequence[float] = WIDTH_FACTORS,
        depth_offsets: Sequence[int] = DEPTH_OFFSETS,
        searched_blocks: Sequence[int] = (),
        space: str = "mnasnet",
    ) -> None:
        """Args:
          base: its backbone is MnasNet or MobileNetV2.
          ops: of "conv", "separable" and "mbconv".
          expansions: of mbconv.
          kernel_sizes: odd.
          se_ratios: squeezed channels over the layer's input channels, 0 to 1; 0: none.
          skips: of "pool", "identity", "none" and "average_pool".
          width_factors: times the block's own width, rounded to multiples of 8 except by a factor
            of 1; of equal widths the first counts.
          depth_offsets: added to the block's own number of layers; less than one is left out.
          searched_blocks: from 1; the others stay as they are. Empty: all.
          space: whose choices these are, for errors.

        Raises ConfigError for a value that no network can have.
        """
        check(space, "ops", ops, OPS.__contains__, f"ones of {', '.join(OPS)}")
        check_positive(space, "expansions", expansions)
        check_positive(space, "kernel_sizes", kernel_sizes, odd=True)
        ratios = [decimal(ratio) for ratio in se_ratios]
        check(space, "se_ratios", ratios, lambda ratio: 0 <= ratio <= 1, "numbers of 0 to 1")
        check(space, "skips", skips, ALL_SKIPS.__contains__, f"ones of {', '.join(ALL_SKIPS)}")
        factors = [decimal(factor) for factor in width_factors]
        check_positive(space, "width_factors", factors)
        check(space, "depth_offsets", depth_offsets, lambda offset: True, "numbers")
        self._space = space
        self._reference = _reference(base, space)
        blocks = range(1, len(self._reference.block) + 1)
        self._searched = tuple(sorted(searched_blocks or blocks))
        allowed = f"numbers of 1 to {len(blocks)}"
        check(space, "searched_blocks", self._searched, blocks.__contains__, allowed)
        self._shared: dict[str, tuple[Choice, ...]] = {
            "op": tuple(dict.fromkeys(_op_names(ops, expansions))),
            "kernel_size": tuple(kernel_sizes),
            "se_ratio": tuple(ratios),
            "skip": tuple(skips),
        }
        self._widths = {n: self._block_widths(n, factors) for n in self._searched}
        self._depths = {n: self._block_depths(n, depth_offsets) for n in self._searched}

    def decisions(self, first: int) -> list[Decision]:
        orders = {"repeats": operator.le}
        # Where a pooled input is projected to another width, a wider block may need no projection,
        # and then it may cost less.
        if not set(self._shared["skip"]) & {"pool", "average_pool"}:
            orders["channels"] = operator.le
        return [
            Decision(f"{_name(number)}/{field}", choices, order=orders.get(field))
            for number in self._searched
            for field, choices in {
                **self._shared,
                "channels": self._widths[number],
                "repeats": self._depths[number],
            }.items()
        ]

    def write(self, values: Mapping[str, Any], architecture: architecture_pb2.Architecture) -> None:
        architecture.backbone.mnasnet.CopyFrom(self._reference)
        for number in self._searched:
            block = architecture.backbone.mnasnet.block[number - 1]
            own = {field: values[f"{_name(number)}/{field}"] for field in _FIELDS}
            op, _, expansion = own["op"].partition("_")
            # Cleared, so that an operation without expansion is equal to one that was never given
            # any.
            block.ClearField("expansion")
            if expansion:
                block.expansion = int(expansion)
            own |= {"op": op.upper(), "skip": own["skip"].upper()}
            block.MergeFrom(_MnasNet.Block(**own))

    def read(self, architecture: architecture_pb2.Architecture) -> Mapping[str, Choice]:
        where = f"architecture {architecture.name!r}: backbone.mnasnet.block"
        blocks, reference = architecture.backbone.mnasnet.block, self._reference.block
        if len(blocks) != len(reference):
            raise UserError(f"{where}: {len(blocks)}, but {len(reference)} in the search space")
        values: dict[str, Choice] = {}
        for number, (block, own) in enumerate(zip(blocks, reference, strict=True), start=1):
            searched = (*_FIELDS, "expansion") if number in self._searched else ()
            if different := difference(own, block, searched):
                raise UserError(f"{where} {number}: {different} in the search space")
            if number in self._searched:
                values |= {f"{_name(number)}/{field}": v for field, v in _read(block).items()}
        return values

    def _block_widths(self, number: int, factors: Sequence[float]) -> tuple[int, ...]:
        own = self._reference.block[number - 1].channels
        # A factor of 1 keeps the published width, also where it is no multiple of 8.
        widths = [own if factor == 1 else _round(own * factor) for factor in factors]
        return tuple(dict.fromkeys(widths))

    def _block_depths(self, number: int, offsets: Sequence[int]) -> tuple[int, ...]:
        own = self._reference.block[number - 1].repeats
        depths = tuple(own + offset for offset in offsets if own + offset >= 1)
        if not depths:
            raise ConfigError(
                f"{self._space} search space: depth_offsets is {list(offsets)}; use one of "
                f"{1 - own} or more, as block {number} has {own} layers"
            )
        return depths


def from_config(
    config: search_pb2.MnasNetSpaceConfig,
    base: architecture_pb2.Architecture,
    space: str = "mnasnet",
) -> list[Part]:
    """Returns the part of the `space` "mnasnet" or "joint".

    Lists that the config leaves empty are the paper's.
    """
    part = MnasNetPart(
        base,
        ops=[_MnasNet.Op.Name(op).lower() for op in config.ops] or OPS,
        expansions=config.expansions or EXPANSIONS,
        kernel_sizes=config.kernel_sizes or KERNEL_SIZES,
        se_ratios=config.se_ratios or SE_RATIOS,
        skips=[_MnasNet.Skip.Name(skip).lower() for skip in config.skips] or SKIPS,
        width_factors=config.width_factors or WIDTH_FACTORS,
        depth_offsets=config.depth_offsets or DEPTH_OFFSETS,
        searched_blocks=config.searched_blocks,
        space=space,
    )
    return [part]


def _reference(base: architecture_pb2.Architecture, space: str) -> architecture_pb2.MnasNet:
    """Returns the base's backbone as a MnasNet."""
    reference = _MnasNet()
    name = base.backbone.WhichOneof("backbone_oneof")
    if name == "mnasnet":
        reference.CopyFrom(base.backbone.mnasnet)
        return reference
    if name != "mobilenet_v2":
        raise ConfigError(
            f"{space} search space: the backbone is {name}; use mnasnet or mobilenet_v2"
        )
    mobilenet = base.backbone.mobilenet_v2

    def width(channels: int) -> int:
        """Returns a scaled width: a MnasNet has no multiplier beside the architecture's."""
        if mobilenet.depth_multiplier == 1:
            return channels
        return _round(channels * mobilenet.depth_multiplier, base.min_depth)

    reference.stem_channels = width(_STEM_CHANNELS)
    reference.last_channels = width(mobilenet.last_channels)
    for index, (channels, repeats, stride) in enumerate(_MOBILENET_V2):
        block = reference.block.add(channels=width(channels), repeats=repeats, stride=stride)
        if index == 0:
            block.expansion = 1
    return reference


def _round(channels: float, minimum: int = 8) -> int:
    """Rounds by slim's rule, as everywhere: the nearest multiple of 8, never below 90 %."""
    rounded = max(minimum, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _name(number: int) -> str:
    """Returns the name of a block, counted from 1, in the names of its decisions."""
    return f"backbone/block_{number}"


def _op_names(ops: Sequence[str], expansions: Sequence[int]) -> Iterator[str]:
    """Yields a choice for every operation, and for every expansion of mbconv."""
    for op in ops:
        if op == "mbconv":
            yield from (_op_name(_MnasNet.Block(expansion=e)) for e in expansions)
        else:
            yield op


def _op_name(block: architecture_pb2.MnasNet.Block) -> str:
    if block.op == _MnasNet.MBCONV:
        # An inverted bottleneck without expansion is a separable convolution: one name for one
        # network.
        return f"mbconv_{block.expansion}" if block.expansion != 1 else "separable"
    return _MnasNet.Op.Name(block.op).lower()


def _read(block: architecture_pb2.MnasNet.Block) -> dict[str, Choice]:
    return {
        "op": _op_name(block),
        "kernel_size": block.kernel_size,
        "se_ratio": decimal(block.se_ratio),
        "skip": _MnasNet.Skip.Name(block.skip).lower(),
        "channels": block.channels,
        "repeats": block.repeats,
    }

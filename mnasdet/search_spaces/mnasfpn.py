"""The search spaces of MnasFPN (Chen et al., 2019, section 3.3 and table 2)."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from mnasdet.errors import UserError
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces.cell import Cell, levels_of, pyramid_of
from mnasdet.search_spaces.choices import check_at_least, check_positive
from mnasdet.search_spaces.composed import Part
from mnasdet.search_spaces.scale import repeats_part
from mnasdet.search_spaces.space import Choice, Decision

# Table 2.
CHANNELS = (16, 32, 48, 64, 80, 96)
EXPANDED_CHANNELS = (16, 32, 64, 96, 128, 256, 512)
KERNEL_SIZES = (3, 5, 7)

# Chen et al. do not say how often a sampled cell is repeated in the search.
REPEATS = 3

_MERGES = ("add", "squeeze_excite")

# More channels inside a block are wider; a larger kernel is neither deeper nor wider.
_ORDERS = {"expanded_channels": operator.le}


class MnasFpnPart(Part):
    """One cell: internal blocks at any level, then one output block a level.

    The decisions are C; for every internal block its inputs, level, merge, F and kernel size; the
    order of the output levels; for every output block the same without its level. The paper gives
    the choices but not their order.

    With two inputs that are added or gated, the cardinality over levels 3 to 6 is appendix A.1's
    2^9 4^5 4! prod C(i+4, 2) 3^9 6 7^9 = 1.87e32 (not the 1e31 printed there). No-Expand lacks the
    7^9, Conn-Search the 2^9, and has C(i+4, 2) + C(i+4, 3) + C(i+4, 4) sets of inputs.
    """

    fields = ("feature_pyramid.mnasfpn.channels", "feature_pyramid.mnasfpn.block")

    def __init__(
        self,
        base: architecture_pb2.Architecture,
        *,
        channels: Sequence[int] = CHANNELS,
        expanded_channels: Sequence[int] | None = EXPANDED_CHANNELS,
        kernel_sizes: Sequence[int] = KERNEL_SIZES,
        num_internal_blocks: int = 5,
        max_inputs: int | None = None,
        space: str = "mnasfpn",
    ) -> None:
        """Args:
          base: gives the levels; all of its MnasFPN but the cell stays as it is.
          channels: choices of C.
          expanded_channels: choices of F; None: F is C, No-Expand.
          kernel_sizes: choices of k, odd.
          num_internal_blocks: blocks that are no output.
          max_inputs: D, the most features that a block merges, which are then only added,
            Conn-Search; None: two, added or gated.
          space: whose choices these are, for errors.

        Raises ConfigError for a value that no network can have.
        """
        check_positive(space, "channels", channels)
        if expanded_channels is not None:
            check_positive(space, "expanded_channels", expanded_channels)
        check_positive(space, "kernel_sizes", kernel_sizes, odd=True)
        check_at_least(space, "num_internal_blocks", num_internal_blocks, 0)
        if max_inputs is not None:
            check_at_least(space, "max_inputs", max_inputs, 2)
        self._channels = Decision("channels", tuple(channels), order=operator.le)
        self._own: dict[str, tuple[Choice, ...]] = {
            "merge": _MERGES if max_inputs is None else (),
            "expanded_channels": tuple(expanded_channels or ()),
            "kernel_size": tuple(kernel_sizes),
        }
        levels = levels_of(base, space)
        # Unread blocks are discarded (Chen et al., 2019, section 3.1), so fewer blocks fill up.
        self._cell = Cell(
            "block", levels, num_internal_blocks, levels, max_inputs=max_inputs or 2, fills=True
        )
        self._first_choices = {d.name: d.choices[0] for d in self.decisions(0)}

    def decisions(self, first: int) -> list[Decision]:
        def own(block: str) -> list[Decision]:
            return [
                Decision(f"{block}/{field}", choices, order=_ORDERS.get(field))
                for field, choices in self._own.items()
                if choices
            ]

        return [self._channels, *self._cell.decisions(first + 1, own)]

    def write(self, values: Mapping[str, Any], architecture: architecture_pb2.Architecture) -> None:
        pyramid = pyramid_of(architecture, "mnasfpn", self._cell.levels)
        pyramid.channels = values["channels"]
        del pyramid.block[:]
        for block in self._cell.merges(values):
            pyramid.block.add(
                input=block.inputs,
                level=block.level,
                merge=values.get(f"{block.name}/merge", "add").upper(),
                expanded_channels=values.get(f"{block.name}/expanded_channels", pyramid.channels),
                kernel_size=values[f"{block.name}/kernel_size"],
            )

    def read(self, architecture: architecture_pb2.Architecture) -> Mapping[str, Choice]:
        """Returns the decisions' values for a cell.

        A cell with fewer internal blocks is filled up after its own with the first choice of
        everything; no output needs those blocks, so the network stays the same.
        """
        where = f"architecture {architecture.name!r}"
        pyramid = architecture.feature_pyramid.mnasfpn
        values = {**self._first_choices, "channels": pyramid.channels}
        fixed: dict[str, Choice] = {"merge": "add", "expanded_channels": pyramid.channels}
        merges = self._cell.read(pyramid.block, lambda block: _merge_name(block) != "add", where)
        for block, merge in zip(pyramid.block, merges, strict=True):
            values |= self._cell.values(merge)
            for field, value in _own_values(block).items():
                if not self._own[field] and value != fixed[field]:
                    raise UserError(
                        f"{where}: {merge.name}/{field} is {value}, but the search space has "
                        f"{fixed[field]}"
                    )
                values[f"{merge.name}/{field}"] = value
        return values


def from_config(
    config: search_pb2.MnasFpnSpaceConfig,
    base: architecture_pb2.Architecture,
    space: str = "mnasfpn",
) -> list[Part]:
    """Returns the parts of the `space` "mnasfpn", "no_expand", "conn_search" or "joint".

    Lists that the config leaves empty are the paper's.
    """
    cell = MnasFpnPart(
        base,
        channels=config.channels or CHANNELS,
        expanded_channels=(
            None if space == "no_expand" else config.expanded_channels or EXPANDED_CHANNELS
        ),
        kernel_sizes=config.kernel_sizes or KERNEL_SIZES,
        num_internal_blocks=config.num_internal_blocks,
        max_inputs=config.max_inputs if space == "conn_search" else None,
        space=space,
    )
    return [cell, repeats_part(base, space, "mnasfpn", config.repeats or REPEATS)]


def _own_values(block: architecture_pb2.MnasFpn.Block) -> dict[str, Choice]:
    return {
        "merge": _merge_name(block),
        "expanded_channels": block.expanded_channels,
        "kernel_size": block.kernel_size,
    }


def _merge_name(block: architecture_pb2.MnasFpn.Block) -> str:
    return architecture_pb2.MnasFpn.Merge.Name(block.merge).lower()

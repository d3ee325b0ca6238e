"""The search spaces of NAS-FPN (Ghiasi et al., 2019, section 3.1) and of NAS-FPNLite-S (Chen et
al., 2019, table 2)."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces.cell import Cell, levels_of, pyramid_of
from mnasdet.search_spaces.choices import check_at_least, check_positive
from mnasdet.search_spaces.composed import Part
from mnasdet.search_spaces.scale import repeats_part
from mnasdet.search_spaces.space import Choice, Decision

# The proxy task of section 4.2: a pyramid of 256 channels stacked 3 times.
CHANNELS = (256,)
REPEATS = 3

# Figure 6 has 7 merging cells for 5 levels.
NUM_INTERNAL_CELLS = 2

# Chen et al., table 2 and appendix A.1.
LITE_CHANNELS = (64,)
LITE_NUM_INTERNAL_CELLS = 5

_OPS = ("sum", "global_pooling")


class NasFpnPart(Part):
    """Merging cells: internal ones, then one output a level.

    The decisions are the width of all features; for every internal cell two inputs, level and
    operation; the order of the output levels; for every output its inputs and operation. An
    internal cell that nothing reads still counts, as the output of its level adds it.

    The cardinality with one width is 2^c l^n L! prod C(i+L, 2), i < c, with L levels, n internal
    cells of l levels to choose from, and c = n + L cells.
    """

    fields = ("feature_pyramid.nas_fpn.channels", "feature_pyramid.nas_fpn.cell")

    def __init__(
        self,
        base: architecture_pb2.Architecture,
        *,
        channels: Sequence[int] = CHANNELS,
        num_internal_cells: int = NUM_INTERNAL_CELLS,
        finest_internal: bool = False,
        separable: bool | None = None,
        space: str = "nas_fpn",
    ) -> None:
        """Args:
          base: gives the levels; all of its NAS-FPN but the cells stays as it is.
          channels: choices of the width of every feature.
          num_internal_cells: cells that are no output.
          finest_internal: whether those may have the finest level, which is the most expensive.
          separable: whether the convolutions are depthwise separable; None: as in the base.
          space: whose choices these are, for errors.

        Raises ConfigError for a value that no network can have.
        """
        check_positive(space, "channels", channels)
        check_at_least(space, "num_internal_cells", num_internal_cells, 0)
        self._channels = Decision("channels", tuple(channels), order=operator.le)
        self._separable = separable
        levels = levels_of(base, space)
        self._cell = Cell(
            "cell", levels, num_internal_cells, levels if finest_internal else levels[1:]
        )

    def decisions(self, first: int) -> list[Decision]:
        cells = self._cell.decisions(first + 1, lambda cell: [Decision(f"{cell}/op", _OPS)])
        return [self._channels, *cells]

    def write(self, values: Mapping[str, Any], architecture: architecture_pb2.Architecture) -> None:
        pyramid = pyramid_of(architecture, "nas_fpn", self._cell.levels)
        pyramid.channels = values["channels"]
        if self._separable is not None:
            pyramid.separable = self._separable
        del pyramid.cell[:]
        for cell in self._cell.merges(values):
            op = values[f"{cell.name}/op"].upper()
            pyramid.cell.add(input=cell.inputs, level=cell.level, op=op)

    def read(self, architecture: architecture_pb2.Architecture) -> Mapping[str, Choice]:
        pyramid = architecture.feature_pyramid.nas_fpn
        values: dict[str, Choice] = {"channels": pyramid.channels}
        where = f"architecture {architecture.name!r}"
        merges = self._cell.read(pyramid.cell, lambda cell: _op_name(cell) != "sum", where)
        for cell, merge in zip(pyramid.cell, merges, strict=True):
            values |= self._cell.values(merge)
            values[f"{merge.name}/op"] = _op_name(cell)
        return values


def from_config(
    config: search_pb2.NasFpnSpaceConfig,
    base: architecture_pb2.Architecture,
    space: str = "nas_fpn",
) -> list[Part]:
    """Returns the parts of the `space` "nas_fpn" or "nas_fpnlite_s".

    What the config leaves out is the papers'.
    """
    lite = space == "nas_fpnlite_s"
    num_internal_cells = LITE_NUM_INTERNAL_CELLS if lite else NUM_INTERNAL_CELLS
    if config.HasField("num_internal_cells"):
        num_internal_cells = config.num_internal_cells
    # Stored trials hold indices of levels: the default of a space never changes.
    finest_internal = config.finest_internal if config.HasField("finest_internal") else lite
    cells = NasFpnPart(
        base,
        channels=config.channels or (LITE_CHANNELS if lite else CHANNELS),
        num_internal_cells=num_internal_cells,
        finest_internal=finest_internal,
        separable=True if lite else None,
        space=space,
    )
    return [cells, repeats_part(base, space, "nas_fpn", config.repeats or REPEATS)]


def _op_name(cell: architecture_pb2.NasFpn.MergingCell) -> str:
    return architecture_pb2.NasFpn.Op.Name(cell.op).lower()

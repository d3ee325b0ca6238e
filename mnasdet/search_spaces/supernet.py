"""The operations of Hit-Detector's layers (Guo et al., "Hit-Detector: Hierarchical Trinity
Architecture Search for Object Detection", 2020, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mnasdet.architectures import chosen_places
from mnasdet.config_checks.architecture import architecture_problems
from mnasdet.errors import ConfigError, UserError
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces.composed import Part
from mnasdet.search_spaces.space import Choice, Decision

# Appendix 6.2: what the paper's screening left. The backbone's list has ir_k5_d1_e3 twice there;
# the second one has to be ir_k5_d1_e6, which the final network uses.
PAPER = {
    "backbone": (
        "ir_k3_d1_e3",
        "ir_k3_d1_e6",
        "ir_k3_d2_e3",
        "ir_k5_d1_e3",
        "ir_k5_d1_e6",
        "ir_k5_d2_e6",
        "ir_k5_d3_e6",
        "ir_k7_d1_e6",
    ),
    # Four of these are others in the released code: a 1x1 convolution and three inverted
    # bottlenecks. The four "sep" ones, all that its final network uses, are in both.
    "feature_pyramid": (
        "conv_k3_d3",
        "conv_k5_d1",
        "ir_k3_d2_e1",
        "ir_k5_d1_e3",
        "sep_k3_d1",
        "sep_k3_d3",
        "sep_k5_d2",
        "sep_k5_d3",
    ),
    "region_head": (
        "ir_k3_d1_e3",
        "ir_k3_d1_e6",
        "ir_k3_d2_e6",
        "ir_k5_d1_e3",
        "ir_k5_d1_e6",
        "ir_k7_d1_e6",
        "conv_k3_d1",
        "conv_k5_d1",
    ),
}


class SupernetPart(Part):
    """One decision for each layer of a supernet that lists several operations."""

    def __init__(self, supernet: architecture_pb2.Architecture) -> None:
        """Raises ConfigError where no layer lists several operations."""
        places = [place for place in chosen_places(supernet) if len(place.layer.op) > 1]
        if not places:
            raise ConfigError(
                "supernet search space: no layer of the architecture lists operations; it needs "
                "backbone.operation_layers, feature_pyramid.hit or region_head.chosen_layers"
            )
        self._ops = {place.name: tuple(place.layer.op) for place in places}
        self.fields = tuple(f"{place.path}.op" for place in places)

    def decisions(self, first: int) -> list[Decision]:
        return [Decision(name, ops) for name, ops in self._ops.items()]

    def write(self, values: Mapping[str, Any], architecture: architecture_pb2.Architecture) -> None:
        for place in chosen_places(architecture):
            if place.name in self._ops:
                place.layer.op[:] = [values[place.name]]

    def read(self, architecture: architecture_pb2.Architecture) -> Mapping[str, Choice]:
        values: dict[str, Choice] = {}
        for name, path, layer in chosen_places(architecture):
            if name not in self._ops:
                continue
            if len(layer.op) != 1:
                raise UserError(
                    f"architecture {architecture.name!r}: {path}.op has {len(layer.op)} entries; "
                    "a network of the search space has one"
                )
            values[name] = layer.op[0]
        return values


def supernet(
    config: search_pb2.SupernetSpaceConfig, base: architecture_pb2.Architecture
) -> architecture_pb2.Architecture:
    """Returns the architecture that lists, in each layer, all operations of the space.

    A part whose operations neither the config nor the base lists has the paper's.
    """
    whole = architecture_pb2.Architecture()
    whole.CopyFrom(base)
    listed = {
        "backbone": config.backbone_ops,
        "feature_pyramid": config.pyramid_ops,
        "region_head": config.head_ops,
    }
    places = chosen_places(whole)
    open_parts = {place.part for place in places if len(place.layer.op) > 1}
    for place in places:
        ops: Sequence[str] = listed[place.part]
        if not ops and place.part not in open_parts:
            ops = PAPER[place.part]
        if ops:
            place.layer.op[:] = ops
    return whole


def from_config(
    config: search_pb2.SupernetSpaceConfig, base: architecture_pb2.Architecture, space: str
) -> list[Part]:
    """Returns the part of the space "supernet"."""
    whole = supernet(config, base)
    if problems := architecture_problems(whole):
        raise ConfigError(f"{space} search space over this architecture: {'; '.join(problems)}")
    return [SupernetPart(whole)]

"""The search space that a config names."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mnasdet.architectures import smallest_image_size
from mnasdet.config_checks.architecture import architecture_problems
from mnasdet.errors import ConfigError
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces import base_code, mnasfpn, mnasnet, nas_fpn, structure, supernet
from mnasdet.search_spaces.composed import ComposedSpace, Part
from mnasdet.search_spaces.scale import scale_parts
from mnasdet.search_spaces.space import SearchSpace


def names() -> list[str]:
    """Returns the names of all search spaces: their fields in SearchSpaceConfig."""
    oneof = search_pb2.SearchSpaceConfig.DESCRIPTOR.oneofs_by_name["search_space_oneof"]
    return [field.name for field in oneof.fields]


def from_config(
    config: search_pb2.SearchSpaceConfig, base: architecture_pb2.Architecture
) -> SearchSpace:
    """Returns the space, over a `base` that gives what it does not choose.

    Raises ConfigError for a config without a space, for choices that no network can have, and for
    a base that the space's networks do not fit.
    """
    name = config.WhichOneof("search_space_oneof")
    if name is None:
        raise ConfigError(f"search_space is empty; use one of {', '.join(names())}")
    parts = _PARTS[name](getattr(config, name), base, name)
    inputs = [(size.height, size.width) for size in config.inputs]
    if name == "structure" and not config.image_sizes:
        inputs = inputs or list(structure.INPUTS)
    parts += scale_parts(name, config.depth_multipliers, config.image_sizes, inputs)
    space = _KINDS.get(name, ComposedSpace)(base, parts)
    _check(name, space, "image_sizes", config.image_sizes, config.image_sizes)
    _check(name, space, "inputs", inputs, list(itertools.chain(*inputs)))
    return space


def _joint(
    config: search_pb2.JointSpaceConfig, base: architecture_pb2.Architecture, space: str
) -> list[Part]:
    return [
        *mnasnet.from_config(config.mnasnet, base, space),
        *mnasfpn.from_config(config.mnasfpn, base, space),
    ]


_PARTS: dict[str, Callable[[Any, architecture_pb2.Architecture, str], list[Part]]] = {
    "mnasfpn": mnasfpn.from_config,
    "no_expand": mnasfpn.from_config,
    "conn_search": mnasfpn.from_config,
    "nas_fpn": nas_fpn.from_config,
    "nas_fpnlite_s": nas_fpn.from_config,
    "mnasnet": mnasnet.from_config,
    "joint": _joint,
    "structure": structure.from_config,
    "base_code": base_code.from_config,
    "supernet": supernet.from_config,
}

# Spaces with a class of their own.
_KINDS: dict[str, type[ComposedSpace]] = {"base_code": base_code.BaseCodeSpace}


def _check(
    name: str, space: ComposedSpace, field: str, sizes: Sequence[Any], sides: Sequence[int]
) -> None:
    """Raises ConfigError where the networks do not fit, or images are too small for them.

    Args:
      field: of the sizes of images; `sizes`: its values; `sides`: heights and widths in pixels.
    """
    for example in _examples(name, space):
        if problems := architecture_problems(example):
            raise ConfigError(f"{name} search space over this architecture: {'; '.join(problems)}")
    smallest = smallest_image_size(space.example)
    if sides and min(sides) < smallest:
        raise ConfigError(
            f"{name} search space: {field} is {list(sizes)}; use {smallest} or more, as every "
            "level is smaller than the one before"
        )


def _examples(name: str, space: ComposedSpace) -> Iterator[architecture_pb2.Architecture]:
    """Yields architectures that stand for all of a space.

    What holds for one of the networks holds for all, as anchors and predictor fit the pyramid. A
    structure chooses these as well, so that each choice is looked at once.
    """
    yield space.example
    if name == "structure":
        first, rng = space.encode(space.example), np.random.default_rng(0)
        for index in range(len(space.decisions)):
            for choice in space.allowed(index, first):
                yield space.decode(space.change(first, index, choice, rng))

"""The search space that a config names."""

from __future__ import annotations

from mnasdet.errors import ConfigError
from mnasdet.protos import architecture_pb2, search_pb2
from mnasdet.search_spaces import mnasfpn
from mnasdet.search_spaces.space import SearchSpace


def names() -> list[str]:
    """Of all search spaces: their fields in SearchSpaceConfig."""
    oneof = search_pb2.SearchSpaceConfig.DESCRIPTOR.oneofs_by_name["search_space_oneof"]
    return [field.name for field in oneof.fields]


def from_config(
    config: search_pb2.SearchSpaceConfig, base: architecture_pb2.Architecture
) -> SearchSpace:
    """The space, over a `base` that gives what it does not choose.

    Raises ConfigError for a config without a space.
    """
    name = config.WhichOneof("search_space_oneof")
    if name == "mnasfpn":
        return mnasfpn.from_config(config.mnasfpn, base)
    raise ConfigError(f"search_space is empty; use one of {', '.join(names())}")

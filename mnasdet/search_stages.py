"""The stages of a search config, each as the config of a search by itself. No TensorFlow."""

from __future__ import annotations

from mnasdet.protos import search_pb2

# The fields that a second stage may have in place of the first one's.
_OWN = ("search_space", "controller", "reward", "latency", "limits")


def settings(search_config: search_pb2.SearchConfig) -> list[search_pb2.SearchConfig]:
    """Returns one config for each stage, the first one first, without a `second_stage`."""
    first = _copy(search_config)
    first.ClearField("second_stage")
    if not search_config.HasField("second_stage"):
        return [first]
    second, own = _copy(first), search_config.second_stage
    second.num_trials = own.num_trials
    # Networks of other spaces share no weights.
    second.ClearField("one_shot")
    second.ClearField("differentiable")
    for name in _OWN:
        if own.HasField(name):
            getattr(second, name).CopyFrom(getattr(own, name))
    if not own.HasField("limits") and not have_one_cost(search_config):
        # Milliseconds of one source are no limit for what another one tells.
        second.limits.ClearField("max_latency_ms")
    return [first, second]


def have_one_cost(search_config: search_pb2.SearchConfig) -> bool:
    """Returns whether the costs of all trials are from one source, and so compare."""
    second = search_config.second_stage
    return not second.HasField("latency") or second.latency == search_config.latency


def common_latency(search_config: search_pb2.SearchConfig) -> search_pb2.LatencyConfig:
    """Returns the source of costs by which trials of all stages compare.

    Where the stages have different sources, it is multiply-adds: they are known of every trial,
    and measuring each child of the second stage as well would take the time that its own source
    saves.
    """
    if have_one_cost(search_config):
        return search_config.latency
    return search_pb2.LatencyConfig(multiply_adds={})


def _copy(search_config: search_pb2.SearchConfig) -> search_pb2.SearchConfig:
    copied = search_pb2.SearchConfig()
    copied.CopyFrom(search_config)
    return copied

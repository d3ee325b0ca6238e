"""The supernet of a search: its blueprint, and what its networks cost."""

from __future__ import annotations

import dataclasses

from mnasdet import config, models
from mnasdet.blueprint import Blueprint
from mnasdet.networks import choices
from mnasdet.networks.choices import ChoiceCosts, Mixing
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.graph import Network
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.search import latency
from mnasdet.search.candidate import Candidate


def blueprint_of(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, whole: architecture_pb2.Architecture
) -> Blueprint:
    """Returns the blueprint of a supernet that adds up all operations of a layer."""
    mixing = Mixing("softmax", pipeline.search_config.differentiable.recompute)
    return dataclasses.replace(config.resolve(pipeline, whole), mixing=mixing)


def expected_costs(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, blueprint: Blueprint
) -> ChoiceCosts:
    """Returns what the networks of a supernet cost by the search's source of latency."""
    network = models.network(blueprint)
    if pipeline.search_config.latency.HasField("multiply_adds"):
        counted = choices.costs(network)
        of_candidates = {
            name: [cost / 1e9 for cost in costs] for name, costs in counted.of_candidates.items()
        }
        return ChoiceCosts(counted.fixed / 1e9, of_candidates)
    # A table adds up layers as TFLite fuses them, over the borders of a candidate. So a candidate
    # costs what it changes of a whole network.
    first = {choice.name: choice for graph in network for choice in choices.choices(graph.nodes)}
    chosen = dict.fromkeys(first, 0)
    changes = [(name, place) for name in first for place in range(len(first[name].inputs))]
    networks = [choices.derive(network, chosen | {name: place}) for name, place in changes]
    source = latency.from_config(pipeline.search_config.latency)
    base, *costs = source.costs(
        [_candidate(blueprint, one) for one in [choices.derive(network, chosen), *networks]]
    )
    changes_of: dict[str, list[float]] = {name: [] for name in first}
    for (name, _), cost in zip(changes, costs, strict=True):
        changes_of[name].append(cost - base)
    return ChoiceCosts(base, changes_of)


def _candidate(blueprint: Blueprint, network: Network) -> Candidate:
    return Candidate((), blueprint, network, cost_sheet(network), network.key())

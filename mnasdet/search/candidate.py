"""An architecture that a search looks at, and what is known of it without training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.protobuf import text_format

from mnasdet import config, models
from mnasdet.blueprint import Blueprint
from mnasdet.networks.cost import CostSheet, cost_sheet
from mnasdet.networks.graph import Network
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.search.trials.trial_store import Trial
from mnasdet.search_spaces.space import Tokens


@dataclass(frozen=True)
class Candidate:
    """An architecture as the pipeline's detector or classifier.

    Attributes:
      tokens: the choices in the search space; none for an architecture that was not sampled.
      sheet: the costs of the network.
      key: equal keys, equal networks.
    """

    tokens: Tokens
    blueprint: Blueprint
    network: Network
    sheet: CostSheet
    key: str

    @property
    def architecture(self) -> architecture_pb2.Architecture:
        return self.blueprint.architecture

    def trial(self, number: int, seed: int, **fields: Any) -> Trial:
        """Returns a new trial with its `params` and `multiply_adds`, and with these fields."""
        total = self.sheet.total
        return Trial(
            number=number,
            tokens=self.tokens,
            architecture=text_format.MessageToString(self.architecture),
            key=self.key,
            seed=seed,
            metrics={"params": total.params, "multiply_adds": total.multiply_adds},
            **fields,
        )


def candidate(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    architecture: architecture_pb2.Architecture | None = None,
    tokens: Tokens = (),
) -> Candidate:
    """Returns what a checked config builds of an architecture, its own if left out."""
    blueprint = config.resolve(pipeline, architecture)
    network = models.network(blueprint)
    return Candidate(tokens, blueprint, network, cost_sheet(network), network.key())

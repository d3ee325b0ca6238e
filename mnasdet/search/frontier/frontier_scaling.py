"""From a search's frontier to a family of detectors (MnasFPN, section 4.2): what to train in full.

The paper takes the top models at three latencies and gives each 3, 4 and 5 repeats of the pyramid.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from absl import logging
from google.protobuf import text_format

from mnasdet.config_checks.architecture import architecture_problems
from mnasdet.errors import UserError
from mnasdet.evaluation.coco import MAP
from mnasdet.networks.builder import canonical_key
from mnasdet.networks.cost import CostSheet, cost_sheet
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.search.latency import LatencySource
from mnasdet.search.search import build_network
from mnasdet.search.trials.trial_store import Trial
from mnasdet.search_spaces.choices import decimal

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class Variant:
    """A frontier member at one scale.

    Attributes:
      name: of its files.
      trial: number of the member's trial.
      repeats: of the pyramid; None where it has none.
      architecture: text proto.
      key: `canonical_key` of the network.
      seed: of its training.
      latency_ms: by the search's latency source.
      proxy_mean_ap: the member's own accuracy on the proxy task, whatever the scale of the variant.
    """

    name: str
    trial: int
    repeats: int | None
    depth_multiplier: float
    architecture: str
    key: str
    seed: int
    params: int
    multiply_adds: int
    latency_ms: float
    proxy_mean_ap: float


def best_within(frontier: Sequence[Trial], latencies_ms: Iterable[float]) -> list[Trial]:
    """For each latency the most accurate frontier member that takes no longer, without repetition.

    "The top models at 166 ms, 173 ms and 180 ms simulated latency" leaves open on which side: here
    a latency is a budget, as it is for whoever has a device. On a frontier the most accurate
    member within it is the slowest one.

    Raises:
      UserError: every member takes longer.
    """
    picks: list[Trial] = []
    for budget in latencies_ms:
        within = [trial for trial in frontier if _latency_ms(trial) <= budget]
        if not within:
            fastest = min(map(_latency_ms, frontier))
            raise UserError(
                f"--latencies_ms: no member of the frontier takes {budget:g} ms or less; the "
                f"fastest takes {fastest:.4g} ms"
            )
        pick = max(within, key=_latency_ms)
        if pick in picks:
            logging.warning("within %g ms the best is trial %d again", budget, pick.number)
        else:
            picks.append(pick)
    return picks


def spread(frontier: Sequence[Trial], max_picks: int) -> list[Trial]:
    """At most so many members, evenly spread from the fastest to the most accurate; a single one is
    the most accurate."""
    if max_picks == 1:
        return [frontier[-1]]
    places = np.linspace(0, len(frontier) - 1, min(max_picks, len(frontier)))
    return [frontier[round(place)] for place in places]


def variants(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    picks: Sequence[Trial],
    repeats: Sequence[int],
    depth_multipliers: Sequence[float],
    latency: LatencySource,
) -> list[Variant]:
    """Every pick at every scale; of those that are one network the first.

    Args:
      repeats, depth_multipliers: in place of the architectures' own; empty: those.

    Raises:
      UserError: a pick cannot have one of the scales.
    """
    scaled: dict[str, tuple[dict[str, Any], CostSheet]] = {}
    for trial in picks:
        for scale in itertools.product(_or_own(repeats), _or_own(depth_multipliers)):
            described, sheet = _describe(pipeline, trial, *scale)
            first, _ = scaled.setdefault(described["key"], (described, sheet))
            if first is not described:
                logging.warning("%s is the same network as %s", described["name"], first["name"])
    sheets = [sheet for _, sheet in scaled.values()]
    return [
        Variant(**described, latency_ms=latency_ms)
        for (described, _), latency_ms in zip(
            scaled.values(), latency.latencies_ms(sheets), strict=True
        )
    ]


def _or_own(scales: Sequence[_T]) -> list[_T | None]:
    """None stands for the architecture's own."""
    return list(scales) or [None]


def _describe(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    trial: Trial,
    repeats: int | None,
    depth_multiplier: float | None,
) -> tuple[dict[str, Any], CostSheet]:
    """The fields of a variant without its latency, and what that is told by."""
    architecture = text_format.Parse(trial.architecture, architecture_pb2.Architecture())
    pyramid = _pyramid(architecture)
    if repeats is not None:
        if not hasattr(pyramid, "repeats"):
            raise UserError(f"--repeats: the {pyramid.DESCRIPTOR.name} pyramid has none")
        pyramid.repeats = repeats
    if depth_multiplier is not None:
        architecture.depth_multiplier = depth_multiplier
    scale = (getattr(pyramid, "repeats", None), decimal(architecture.depth_multiplier))
    name = _name(trial.number, *scale)
    if problems := architecture_problems(architecture):
        raise UserError(f"{name}: {'; '.join(problems)}")
    architecture.name = name
    network = build_network(pipeline, architecture)
    sheet = cost_sheet(network.outputs)
    described = {
        "name": name,
        "trial": trial.number,
        "repeats": scale[0],
        "depth_multiplier": scale[1],
        "architecture": text_format.MessageToString(architecture),
        "key": canonical_key(network.outputs),
        "seed": trial.seed,
        "params": sheet.total.params,
        "multiply_adds": sheet.total.multiply_adds,
        # pycocotools says -1 where there is nothing to find.
        "proxy_mean_ap": max(trial.metrics[MAP], 0.0),
    }
    return described, sheet


def _pyramid(architecture: architecture_pb2.Architecture):
    pyramid = architecture.feature_pyramid
    return getattr(pyramid, pyramid.WhichOneof("feature_pyramid_oneof"))


def _name(trial: int, repeats: int | None, depth_multiplier: float) -> str:
    """ "trial_00012_r4_d0.7"."""
    middle = "" if repeats is None else f"_r{repeats}"
    return f"trial_{trial:05d}{middle}_d{depth_multiplier:g}"


def _latency_ms(trial: Trial) -> float:
    return math.inf if trial.latency_ms is None else trial.latency_ms

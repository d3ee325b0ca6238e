"""From a search's frontier to a family of detectors (MnasFPN, section 4.2): what to train in full.

The paper takes the top models at three latencies and gives each 3, 4 and 5 repeats of the pyramid.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from absl import logging
from google.protobuf import text_format

from mnasdet.architectures import from_trial
from mnasdet.config_checks.architecture import architecture_problems
from mnasdet.errors import UserError
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.search.candidate import Candidate, candidate
from mnasdet.search.latency import LatencySource
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
      cost: by the search's latency source.
      proxy_accuracy: the member's own on the proxy task, whatever the scale of the variant.
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
    cost: float
    proxy_accuracy: float


def best_within(
    frontier: Sequence[Trial], budgets: Iterable[float], unit: str = "ms"
) -> list[Trial]:
    """Returns for each budget the most accurate frontier member within it, without repetition.

    "The top models at 166 ms, 173 ms and 180 ms simulated latency" leaves open on which side: here
    a latency is a budget, as it is for the owner of a device. On a frontier the most accurate
    member within it is the one that costs most.

    Args:
      budgets: costs, in the `unit` of the search's latency source.

    Raises:
      UserError: every member costs more.
    """
    picks: list[Trial] = []
    for budget in budgets:
        within = [trial for trial in frontier if _cost(trial) <= budget]
        if not within:
            least = min(map(_cost, frontier))
            raise UserError(
                f"--latencies_ms: no member of the frontier takes {budget:g} {unit} or less; the "
                f"fastest takes {least:.4g} {unit}"
            )
        pick = max(within, key=_cost)
        # Two budgets may have the same best: it is trained once.
        if pick in picks:
            logging.warning("within %g %s the best is trial %d again", budget, unit, pick.number)
        else:
            picks.append(pick)
    return picks


def spread(frontier: Sequence[Trial], max_picks: int) -> list[Trial]:
    """Returns at most so many members, evenly spread from the fastest to the most accurate.

    A single one is the most accurate.
    """
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
    """Returns every pick at every scale; of those that are one network the first.

    Args:
      repeats, depth_multipliers: in place of the architectures' own; empty: those.

    Raises:
      UserError: a pick cannot have one of the scales.
    """
    scaled: dict[str, tuple[Trial, Candidate]] = {}
    for trial in picks:
        for scale in itertools.product(_or_own(repeats), _or_own(depth_multipliers)):
            found = candidate(pipeline, _scaled(trial, *scale), trial.tokens)
            _, first = scaled.setdefault(found.key, (trial, found))
            if first is not found:
                names = (found.architecture.name, first.architecture.name)
                logging.warning("%s is the same network as %s", *names)
    # All at once: a source that measures opens its device once.
    costs = latency.costs([found for _, found in scaled.values()])
    return [
        _variant(trial, found, cost)
        for (trial, found), cost in zip(scaled.values(), costs, strict=True)
    ]


def _or_own(scales: Sequence[_T]) -> list[_T | None]:
    """Returns the scales, or None for the architecture's own."""
    return list(scales) or [None]


def _scaled(
    trial: Trial, repeats: int | None, depth_multiplier: float | None
) -> architecture_pb2.Architecture:
    """Returns the architecture of a trial at another scale, with a name that tells both."""
    architecture = from_trial(trial.architecture)
    pyramid = _pyramid(architecture)
    if repeats is not None:
        if not hasattr(pyramid, "repeats"):
            has = "a classifier" if pyramid is None else f"the {pyramid.DESCRIPTOR.name} pyramid"
            raise UserError(f"--repeats: {has} has none")
        pyramid.repeats = repeats
    if depth_multiplier is not None:
        architecture.depth_multiplier = depth_multiplier
    architecture.name = _name(trial.number, *_scale(architecture))
    # A scale may break what held for the trial, such as an exit after the last repeat.
    if problems := architecture_problems(architecture):
        raise UserError(f"{architecture.name}: {'; '.join(problems)}")
    return architecture


def _variant(trial: Trial, found: Candidate, cost: float) -> Variant:
    repeats, depth_multiplier = _scale(found.architecture)
    total = found.sheet.total
    return Variant(
        name=found.architecture.name,
        trial=trial.number,
        repeats=repeats,
        depth_multiplier=depth_multiplier,
        architecture=text_format.MessageToString(found.architecture),
        key=found.key,
        seed=trial.seed,
        params=total.params,
        multiply_adds=total.multiply_adds,
        cost=cost,
        proxy_accuracy=trial.accuracy or 0.0,
    )


def _scale(architecture: architecture_pb2.Architecture) -> tuple[int | None, float]:
    """Returns the repeats of the pyramid, where it has some, and the depth multiplier."""
    repeats = getattr(_pyramid(architecture), "repeats", None)
    return repeats, decimal(architecture.depth_multiplier)


def _pyramid(architecture: architecture_pb2.Architecture):
    """Returns the message of the feature pyramid; None for a classifier."""
    pyramid = architecture.feature_pyramid
    name = pyramid.WhichOneof("feature_pyramid_oneof")
    return getattr(pyramid, name) if name else None


def _name(trial: int, repeats: int | None, depth_multiplier: float) -> str:
    """Returns a name such as "trial_00012_r4_d0.7"."""
    middle = "" if repeats is None else f"_r{repeats}"
    return f"trial_{trial:05d}{middle}_d{depth_multiplier:g}"


def _cost(trial: Trial) -> float:
    return math.inf if trial.cost is None else trial.cost

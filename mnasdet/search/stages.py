"""The stages of a search: SM-NAS (Yao et al., 2020, section 3.2) picks architectures of the front
of its first search, each of which is where one group of a second search starts from.

The second stage is a function of the first one's results alone, so that a search that was
interrupted, between the stages too, is resumed by replaying it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from absl import logging

from mnasdet import base_codes, search_stages
from mnasdet.architectures import from_trial
from mnasdet.errors import ConfigError, UserError
from mnasdet.protos import architecture_pb2, pipeline_pb2, search_pb2
from mnasdet.search import latency
from mnasdet.search.candidate import candidate
from mnasdet.search.controllers import factory as controllers
from mnasdet.search.controllers.controller import Controller, Prior, Result
from mnasdet.search.differentiable import records
from mnasdet.search.differentiable.derivation import Derived
from mnasdet.search.frontier import pareto
from mnasdet.search.trials.trial import Trial, TrialState
from mnasdet.search_spaces import factory as search_spaces
from mnasdet.search_spaces.space import SearchSpace, Tokens


@dataclass(frozen=True)
class Stage:
    """The parts of a stage that the loop needs beside its config.

    Attributes:
      groups: the numbers of the trials that its groups start from; none in the first stage.
    """

    space: SearchSpace | GroupedSpace
    controller: Controller
    groups: tuple[int, ...] = ()


@dataclass(frozen=True)
class Group:
    """One architecture of the first front, and the space around it.

    Attributes:
      trial: its number.
      start: its tokens in the space; None where the space does not hold it.
    """

    trial: int
    space: SearchSpace
    start: Tokens | None


class GroupedSpace:
    """The spaces of all groups: the first token is the place of the group, from 0."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._spaces = [group.space for group in groups]

    @property
    def has_order(self) -> bool:
        return any(space.has_order for space in self._spaces)

    def decode(self, tokens: Tokens) -> architecture_pb2.Architecture:
        group, *own = tokens
        return self._spaces[group].decode(own)

    def precedes(self, a: Tokens, b: Tokens) -> bool:
        """Returns the order of two architectures of one group; those of two groups have none."""
        (group, *own), (other, *others) = a, b
        return group == other and self._spaces[group].precedes(own, others)


class TakingTurns:
    """A `Controller` of several groups, each of which has one of its own and every n-th trial."""

    def __init__(self, members: Sequence[Controller]) -> None:
        self._members = tuple(members)
        self._num_proposed = 0

    def propose(self, n: int) -> list[Tokens]:
        first = self._num_proposed
        self._num_proposed += n
        # The number of a trial gives its group, however many are asked for at a time.
        return [self._propose(number % len(self._members)) for number in range(first, first + n)]

    def _propose(self, group: int) -> Tokens:
        (tokens,) = self._members[group].propose(1)
        return (group, *tokens)

    def feedback(self, results: Sequence[Result]) -> None:
        for result in results:
            group, *own = result.tokens
            self._members[group].feedback([result._replace(tokens=tuple(own))])


def run(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    space: SearchSpace,
    search: Callable[[pipeline_pb2.TrainEvalPipelineConfig, Stage, int], list[Trial]],
) -> list[Trial]:
    """Runs all stages, one after the other, and returns their trials.

    Args:
      space: of the first stage.
      search: runs one stage, from its config and the number of its first trial, and returns its
        trials, all of them finished.
    """
    config, *later = pipelines(pipeline)
    trials = search(config, first(config, space), 0)
    for config in later:
        groups = pipeline.search_config.second_stage.num_groups
        trials = [*trials, *search(config, second(config, trials, groups), len(trials))]
    return trials


def pipelines(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
) -> list[pipeline_pb2.TrainEvalPipelineConfig]:
    """Returns one config for each stage, with what its children are trained on and how."""
    configs = []
    for settings in search_stages.settings(pipeline.search_config):
        config = pipeline_pb2.TrainEvalPipelineConfig()
        config.CopyFrom(pipeline)
        config.search_config.CopyFrom(settings)
        configs.append(config)
    own = pipeline.search_config.second_stage
    if own.HasField("train_config"):
        configs[1].train_config.CopyFrom(own.train_config)
    return configs


def first(pipeline: pipeline_pb2.TrainEvalPipelineConfig, space: SearchSpace) -> Stage:
    """Returns the first stage, or the only one.

    Args:
      pipeline: the config of this stage.
    """
    settings = pipeline.search_config
    if settings.HasField("differentiable"):
        return Stage(space, Derived(space, records.probabilities(settings.differentiable.folder)))
    prior = Prior(cost=_cost(pipeline, space))
    return Stage(space, controllers.from_config(settings.controller, space, settings.seed, prior))


def second(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, earlier: Sequence[Trial], num_groups: int
) -> Stage:
    """Returns the second stage.

    Args:
      pipeline: the config of this stage.
      earlier: the trials of the first one, all of them finished.

    Raises:
      UserError: no architecture of the first front has a space around it.
    """
    settings = pipeline.search_config
    groups = _groups(pipeline, _front(earlier), num_groups)
    members = []
    for place, group in enumerate(groups):
        starts = () if group.start is None else (group.start,)
        prior = Prior(starts, _cost(pipeline, group.space))
        # A seed for each group: else all would begin with the same random numbers.
        seed = settings.seed + place
        members.append(controllers.from_config(settings.controller, group.space, seed, prior))
    numbers = tuple(group.trial for group in groups)
    return Stage(GroupedSpace(groups), TakingTurns(members), numbers)


def _front(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the front as the second stage was told of it, cheapest first."""
    known = [
        trial
        for trial in trials
        # A trial that was trained again was a failure when the groups were chosen.
        if trial.state is TrialState.COMPLETE
        and trial.duplicate_of is None
        and not trial.told_failed
    ]
    points = [(trial.accuracy or 0.0, trial.cost or 0.0) for trial in known]
    return [known[place] for place in pareto.frontier(points)]


def picked(front: Sequence[Trial], count: int) -> list[Trial]:
    """Returns at most `count` members, evenly spaced by their cost, the cheapest first.

    For each of the evenly spaced costs it is the nearest member that is not taken yet.
    """
    costs = [trial.cost or 0.0 for trial in front]
    free = list(range(len(front)))
    taken = []
    for wanted in np.linspace(costs[0], costs[-1], min(count, len(front))) if front else []:
        # The place settles ties: a replay has to pick the same ones.
        nearest = min(free, key=lambda place: (abs(costs[place] - wanted), place))
        free.remove(nearest)
        taken.append(nearest)
    return [front[place] for place in sorted(taken)]


def _groups(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, front: Sequence[Trial], count: int
) -> list[Group]:
    config = pipeline.search_config.search_space
    members = list(front)
    spaces: dict[int, SearchSpace | None] = {}
    picks = picked(members, count)
    while new := [trial for trial in picks if trial.number not in spaces]:
        spaces |= {trial.number: _space(config, trial) for trial in new}
        # Others of the front take the places of those that the space cannot start from.
        members = [trial for trial in members if spaces.get(trial.number, trial) is not None]
        picks = picked(members, count)
    if not picks:
        raise UserError(
            f"the second stage has nothing to start from: none of the {len(front)} trials on the "
            "front of the first one has an architecture that search_config.second_stage."
            "search_space fits"
        )
    return [
        Group(trial.number, space, _start(config, trial, space))
        for trial in picks
        if (space := spaces[trial.number]) is not None
    ]


def _space(config: search_pb2.SearchSpaceConfig, trial: Trial) -> SearchSpace | None:
    """Returns the space around a trial's architecture; None, with a warning, where none fits."""
    try:
        return search_spaces.from_config(config, _base(config, trial))
    except ConfigError as error:
        number = trial.number
        logging.warning("no group of the second stage starts from trial %d: %s", number, error)
        return None


def _start(config: search_pb2.SearchSpaceConfig, trial: Trial, space: SearchSpace) -> Tokens | None:
    """Returns the tokens of a trial's architecture; None, with a warning, where there are none."""
    try:
        return space.encode(_base(config, trial))
    except UserError as error:
        logging.warning(
            "the group of trial %d starts from random architectures, as its space does not hold "
            "that trial's: %s",
            trial.number,
            error,
        )
        return None


def _base(config: search_pb2.SearchSpaceConfig, trial: Trial) -> architecture_pb2.Architecture:
    """Returns the architecture of a trial as the second stage starts from it.

    Among base codes a ResNet is the one of its blocks and widths, and the backbone has the
    hyper-parameters that the space gives to all.
    """
    base = from_trial(trial.architecture)
    if config.HasField("base_code"):
        if base.backbone.HasField("resnet"):
            resnet = base.backbone.resnet
            code = base_codes.of_resnet(resnet.depth, resnet.groups)
            base.backbone.base_code.code = str(code)
        if config.base_code.HasField("conv_hyperparams"):
            base.backbone.conv_hyperparams.CopyFrom(config.base_code.conv_hyperparams)
    return base


def _cost(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, space: SearchSpace
) -> Callable[[Tokens], float] | None:
    """Returns the cost of tokens, where the stage's source computes it; None where it measures.

    A measurement of every candidate would take long, and would be another one when a search is
    replayed.
    """
    config = pipeline.search_config.latency
    if not latency.is_computed(config):
        return None
    source = latency.from_config(config)

    @functools.cache
    def cost(tokens: Tokens) -> float:
        (value,) = source.costs([candidate(pipeline, space.decode(tokens), tokens)])
        return value

    return cost

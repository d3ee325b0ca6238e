"""The stages of a search's trials, as search.json tells of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from mnasdet.search.trials.trial import Trial, TrialState


@dataclasses.dataclass(frozen=True)
class Chain:
    """The stages of a search, most of which have one.

    Attributes:
      firsts: the number of each stage's first trial.
      units: of the costs of each stage's trials.
      unit: in which all trials compare; "" where search.json names none.
      groups: the trials of the first stage that the groups of the second start from.
    """

    firsts: tuple[int, ...] = (0,)
    units: tuple[str, ...] = ("",)
    unit: str = ""
    groups: tuple[int, ...] = ()

    @property
    def is_chained(self) -> bool:
        return len(self.firsts) > 1

    def stage(self, trial: Trial) -> int:
        """Returns the stage of a trial, from 1."""
        # Trials are numbered through all stages.
        return sum(first <= trial.number for first in self.firsts)

    def of_stage(self, trials: Sequence[Trial], stage: int) -> list[Trial]:
        return [trial for trial in trials if self.stage(trial) == stage]

    def final(self, trials: Sequence[Trial]) -> list[Trial]:
        """Returns the trials of the last stage that has a complete one.

        Rewards of two stages do not compare: each may have a reward, a cost and a training of its
        own. The result of a search is the best of its last stage.
        """
        for stage in range(len(self.firsts), 1, -1):
            own = self.of_stage(trials, stage)
            if any(trial.state is TrialState.COMPLETE for trial in own):
                return own
        return self.of_stage(trials, 1)

    def parent(self, trial: Trial) -> int | None:
        """Returns the trial that the group of a trial of the second stage starts from."""
        if self.stage(trial) == 1 or not self.groups:
            return None
        # The first token of a `GroupedSpace` is the place of the group.
        return self.groups[trial.tokens[0]]

    def aligned(self, trials: Sequence[Trial]) -> list[Trial]:
        """Returns trials whose costs compare across the stages.

        Where the stages have costs of different kinds, it is multiply-adds for all of them.
        """
        if not self.is_chained or set(self.units) == {self.unit}:
            return list(trials)
        return [
            # Multiply-adds are counted for every child; as a cost they are in billions.
            dataclasses.replace(trial, cost=trial.metrics["multiply_adds"] / 1e9)
            for trial in trials
        ]


# A search of one stage.
SINGLE = Chain()


def from_description(description: Mapping[str, Any] | None) -> Chain:
    """Returns the stages that search.json names; one where it names none."""
    held = description or {}
    stages = held.get("stages", [])
    if not stages:
        return SINGLE
    return Chain(
        tuple(stage["first"] for stage in stages),
        tuple(stage["unit"] for stage in stages),
        held["unit"],
        tuple(held.get("groups", ())),
    )

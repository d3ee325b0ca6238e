"""How often trained children violate the assumption of partial-order pruning."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mnasdet.search.trials.trial import Trial, TrialState
from mnasdet.search_spaces.space import Tokens


class Ordered(Protocol):
    """A search space, or those of several groups."""

    @property
    def has_order(self) -> bool: ...

    def precedes(self, a: Tokens, b: Tokens) -> bool: ...


@dataclass(frozen=True)
class Violations:
    """Pairs of trained children of which one is no deeper and no wider than the other.

    Attributes:
      pairs: all of them.
      accuracy: in how many the smaller child is the more accurate one.
      cost: in how many it costs more.
    """

    pairs: int
    accuracy: int
    cost: int

    @property
    def text(self) -> str:
        """Tells both rates in one sentence."""
        return (
            f"Of {self.pairs:,} pairs of trained children, one no deeper and no wider than the "
            f"other, the smaller one was more accurate in {self.accuracy / self.pairs:.1%} and "
            f"cost more in {self.cost / self.pairs:.1%}."
        )


def to_json(stage: int, found: Violations) -> dict[str, Any]:
    """Returns an entry of "order" in search.json."""
    return {"stage": stage, **dataclasses.asdict(found)}


def from_json(entry: Mapping[str, Any]) -> Violations:
    return Violations(entry["pairs"], entry["accuracy"], entry["cost"])


def violations(space: Ordered, trials: Sequence[Trial]) -> Violations | None:
    """Compares all pairs of complete trials; None where no two of them are ordered.

    Args:
      trials: of one stage, whose accuracies and costs compare.
    """
    if not space.has_order:
        return None
    # A duplicate has the results of its original: it would count that one's pairs twice.
    trained = [
        (trial.tokens, trial.accuracy or 0.0, trial.cost or 0.0)
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.duplicate_of is None
    ]
    pairs = accuracy = cost = 0
    # Both ways round: either of the two may be the smaller one.
    for one, other in itertools.permutations(trained, 2):
        if space.precedes(one[0], other[0]):
            pairs += 1
            accuracy += one[1] > other[1]
            cost += one[2] > other[2]
    return Violations(pairs, accuracy, cost) if pairs else None

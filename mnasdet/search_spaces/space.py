"""The choices of a search: an ordered list of categorical decisions."""

from __future__ import annotations

import abc
import bisect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from mnasdet.errors import UserError
from mnasdet.protos import architecture_pb2

# The published spaces have dozens of states after a decision, and the eight levels 3 to 10 have
# 20,160; each further level has eight times as many.
_MAX_STATES = 50_000

Choice: TypeAlias = int | float | str

# The index of what was chosen, one for every decision.
Tokens: TypeAlias = tuple[int, ...]

# For each choice of an earlier decision: which choices of the later one it leaves.
Table: TypeAlias = tuple[tuple[bool, ...], ...]


@dataclass(frozen=True)
class Decision:
    """One choice.

    Attributes:
      name: unique in its space.
      choices: what a token is an index of.
      narrowed_by: pairs (index of an earlier decision, table). A choice is allowed where the rows
        that the earlier tokens pick out of all tables allow it.
      order: a partial order of the choices: whether the first is no deeper and no wider than the
        second. None: no two different choices can be compared.
    """

    name: str
    choices: tuple[Choice, ...]
    narrowed_by: tuple[tuple[int, Table], ...] = ()
    order: Callable[[Any, Any], bool] | None = field(default=None, compare=False)


class SearchSpace(abc.ABC):
    """Decisions, and the architecture that their tokens stand for.

    The tables keep every token list valid as it is made, so nothing is ever rejected: whatever the
    earlier decisions, at least one choice has to be left.
    """

    def __init__(self, decisions: Sequence[Decision]) -> None:
        """Raises ValueError where tokens exist that leave a decision without a choice."""
        self.decisions = tuple(decisions)
        # needed[i]: the decisions before i that narrow i or a later one. A state is their tokens
        # alone, so that the counts stay few where most decisions are free.
        self._needed = [
            sorted(
                {
                    earlier
                    for decision in self.decisions[index:]
                    for earlier, _ in decision.narrowed_by
                    if earlier < index
                }
            )
            for index in range(len(self.decisions) + 1)
        ]
        self._completions: dict[tuple[int, Tokens], tuple[int, ...]] = {}
        self._cumulative: dict[tuple[int, Tokens], list[float]] = {}
        self._cardinality = self._count()

    @abc.abstractmethod
    def _decode(self, values: Mapping[str, Choice]) -> architecture_pb2.Architecture:
        """Returns the architecture of the chosen values, by the decisions' names."""

    @abc.abstractmethod
    def _encode(self, architecture: architecture_pb2.Architecture) -> Mapping[str, Choice]:
        """Inverts `_decode`; raises UserError for an architecture that the space does not hold."""

    def decode(self, tokens: Sequence[int]) -> architecture_pb2.Architecture:
        """Returns the architecture of tokens. Raises UserError for tokens of another space."""
        self.validate(tokens)
        return self._decode(
            {d.name: d.choices[token] for d, token in zip(self.decisions, tokens, strict=True)}
        )

    def encode(self, architecture: architecture_pb2.Architecture) -> Tokens:
        """Returns tokens that decode to this network. Raises UserError where the space has none."""
        values = self._encode(architecture)
        tokens: list[int] = []
        for index, decision in enumerate(self.decisions):
            value = values[decision.name]
            allowed = [decision.choices[choice] for choice in self.allowed(index, tokens)]
            if value not in allowed:
                raise UserError(
                    f"architecture {architecture.name!r}: {decision.name} is {value}, but the "
                    f"search space has {', '.join(map(str, allowed))}"
                )
            tokens.append(decision.choices.index(value))
        return tuple(tokens)

    def allowed(self, index: int, earlier: Sequence[int]) -> tuple[int, ...]:
        """Returns the tokens that decision `index` may have after the tokens `earlier`."""
        decision = self.decisions[index]
        rows = [table[earlier[i]] for i, table in decision.narrowed_by]
        return tuple(c for c in range(len(decision.choices)) if all(row[c] for row in rows))

    def validate(self, tokens: Sequence[int]) -> None:
        """Raises UserError unless `tokens` belong to the space."""
        if len(tokens) != len(self.decisions):
            raise UserError(f"{len(tokens)} tokens for {len(self.decisions)} decisions")
        for index, token in enumerate(tokens):
            self._check_allowed(index, token, tokens)

    def _check_allowed(self, index: int, token: int, tokens: Sequence[int]) -> None:
        """Raises UserError unless the tokens before `index` allow `token` there."""
        allowed = self.allowed(index, tokens)
        if token not in allowed:
            raise UserError(
                f"token {index} ({self.decisions[index].name}) is {token}; the tokens before it "
                f"allow {', '.join(map(str, allowed))}"
            )

    def sample(self, rng: np.random.Generator) -> Tokens:
        """Draws one of all token lists, each as likely as any other."""
        tokens: list[int] = []
        # Drawing decision by decision alone would favour lists with few choices left. Each choice
        # is weighed by the number of lists that go on from it.
        for index, x in enumerate(rng.random(len(self.decisions))):
            state = (index, tuple(tokens[i] for i in self._needed[index]))
            if state not in self._cumulative:
                sums = list(itertools.accumulate(self._completions[state]))
                self._cumulative[state] = [part / sums[-1] for part in sums]
            tokens.append(bisect.bisect_right(self._cumulative[state], x))
        return tuple(tokens)

    def mutate(self, tokens: Sequence[int], rng: np.random.Generator) -> Tokens:
        """Changes one decision, and later ones only where the change no longer allows them.

        Raises UserError for tokens of another space, and where the space has no others.
        """
        self.validate(tokens)
        others = {
            # Only a choice of another value counts as a mutation: a child like its parent teaches
            # nothing.
            index: [choice for choice in self.allowed(index, tokens) if choice != token]
            for index, token in enumerate(tokens)
        }
        free = [index for index in others if others[index]]
        if not free:
            raise UserError("no decision has another choice; give the search space more of them")
        changed = int(rng.choice(free))
        return self._changed(tokens, changed, int(rng.choice(others[changed])), rng)

    def change(
        self, tokens: Sequence[int], index: int, choice: int, rng: np.random.Generator
    ) -> Tokens:
        """Sets decision `index` to `choice`.

        A later decision that this no longer allows becomes a random allowed one.

        Raises UserError for tokens of another space, and where the earlier tokens forbid it.
        """
        self.validate(tokens)
        self._check_allowed(index, choice, tokens)
        return self._changed(tokens, index, choice, rng)

    def _changed(
        self, tokens: Sequence[int], index: int, choice: int, rng: np.random.Generator
    ) -> Tokens:
        changed = [*tokens[:index], choice]
        for later in range(index + 1, len(tokens)):
            allowed = self.allowed(later, changed)
            # A decision that still may stay as it is does: a mutation is a small step.
            changed.append(tokens[later] if tokens[later] in allowed else int(rng.choice(allowed)))
        return tuple(changed)

    def cross(self, a: Sequence[int], b: Sequence[int], rng: np.random.Generator) -> Tokens:
        """Crosses uniformly: every decision is as in `a` or `b`, each as likely.

        Where the earlier tokens do not allow the one, it is the other's; where they allow neither,
        a random allowed one. Raises UserError for tokens of another space.
        """
        self.validate(a)
        self.validate(b)
        crossed: list[int] = []
        # All draws at once: their number does not depend on what the parents allow.
        from_b = rng.random(len(self.decisions)) < 0.5
        for index, parents in enumerate(zip(a, b, strict=True)):
            allowed = self.allowed(index, crossed)
            preferred = reversed(parents) if from_b[index] else parents
            fits = [token for token in preferred if token in allowed]
            crossed.append(fits[0] if fits else int(rng.choice(allowed)))
        return tuple(crossed)

    @property
    def has_order(self) -> bool:
        """Returns whether `precedes` compares different networks of this space."""
        return any(decision.order is not None for decision in self.decisions)

    def precedes(self, a: Sequence[int], b: Sequence[int]) -> bool:
        """Returns whether the network of `a` is no deeper and no wider than that of `b`.

        In everything without an order, such as kernel sizes, both are the same. This is a partial
        order of token lists. Partial-order pruning (Li et al., 2019) assumes that `a` is then
        neither more accurate nor slower than `b`.
        """
        tokens = zip(a, b, strict=True)
        return all(self._no_larger(index, *both) for index, both in enumerate(tokens))

    def _no_larger(self, index: int, token: int, other: int) -> bool:
        """Returns whether a choice of decision `index` is equal to another, or ordered before."""
        decision = self.decisions[index]
        return token == other or (
            decision.order is not None
            and decision.order(decision.choices[token], decision.choices[other])
        )

    def cardinality(self) -> int:
        """Returns how many token lists there are, exactly."""
        return self._cardinality

    def _count(self) -> int:
        """Returns the cardinality, and fills in the ways to go on after each choice."""
        # Forwards the states that can be reached, then backwards their counts: calls inside one
        # another would be deeper than Python goes where there are hundreds of decisions.
        following: list[dict[Tokens, list[Tokens | None]]] = []
        states: Iterable[Tokens] = [()]
        for index, decision in enumerate(self.decisions):
            following.append({state: self._following(index, state) for state in states})
            states = {
                after
                for afters in following[index].values()
                for after in afters
                if after is not None
            }
            if len(states) > _MAX_STATES:
                raise UserError(
                    f"the search space has more than {_MAX_STATES} states behind decision "
                    f"{decision.name}, and would take minutes to count; give it fewer levels or "
                    "blocks"
                )
        counts = dict.fromkeys(states, 1)
        for index in reversed(range(len(self.decisions))):
            for state, afters in following[index].items():
                completions = tuple(0 if after is None else counts[after] for after in afters)
                self._completions[index, state] = completions
            counts = {state: sum(self._completions[index, state]) for state in following[index]}
        return counts[()]

    def _following(self, index: int, needed: Tokens) -> list[Tokens | None]:
        """Returns the state after each choice of decision `index`; None where it is not allowed.

        Args:
          needed: the tokens of `self._needed[index]`.
        """
        decision = self.decisions[index]
        earlier = dict(zip(self._needed[index], needed, strict=True))
        rows = [table[earlier[i]] for i, table in decision.narrowed_by]
        states = [
            tuple((earlier | {index: choice})[i] for i in self._needed[index + 1])
            if all(row[choice] for row in rows)
            else None
            for choice in range(len(decision.choices))
        ]
        if all(state is None for state in states):
            raise ValueError(f"decision {decision.name}: no choice is left behind tokens {earlier}")
        return states

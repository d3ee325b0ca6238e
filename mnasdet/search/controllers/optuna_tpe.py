"""Optuna's tree-structured Parzen estimator (Bergstra et al., "Algorithms for Hyper-Parameter
Optimization", 2011): the reference from outside."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mnasdet.errors import UserError
from mnasdet.protos import search_pb2
from mnasdet.search.controllers.controller import Result
from mnasdet.search_spaces.space import SearchSpace, Tokens

_ASKED, _FAILED = np.inf, np.nan


class OptunaTpe:
    """A `Controller` around an Optuna study that is kept in memory."""

    def __init__(self, space: SearchSpace, *, seed: int = 0, num_startup_trials: int = 10) -> None:
        """Args:
        seed: not negative.
        num_startup_trials: random architectures that come first.

        Raises UserError where Optuna is not installed.
        """
        try:
            import optuna
        except ImportError:
            raise UserError(
                'the optuna controller needs Optuna: pip install "mnasdet[optuna]"'
            ) from None
        self._optuna = optuna
        self._space = space
        self._seed = seed
        self._num_startup_trials = num_startup_trials
        self._begin()

    def _begin(self) -> None:
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        sampler = self._optuna.samplers.TPESampler(
            seed=self._seed, n_startup_trials=self._num_startup_trials
        )
        self._study = self._optuna.create_study(direction="maximize", sampler=sampler)
        self._pending: deque[Any] = deque()
        # What happened, in its order: `_ASKED`, or a reward that was told.
        self._events: list[float] = []

    def propose(self, n: int) -> list[Tokens]:
        return [self._ask() for _ in range(n)]

    def _ask(self) -> Tokens:
        trial = self._study.ask()
        self._pending.append(trial)
        self._events.append(_ASKED)
        tokens: list[int] = []
        for index, decision in enumerate(self._space.decisions):
            allowed = self._space.allowed(index, tokens)
            # A parameter of Optuna's has the same choices always: what others narrow is one
            # parameter for every set of choices that they leave.
            narrowed = len(allowed) < len(decision.choices)
            name = f"{decision.name} of {allowed}" if narrowed else decision.name
            tokens.append(trial.suggest_categorical(name, allowed))
        return tuple(tokens)

    def feedback(self, results: Sequence[Result]) -> None:
        for result in results:
            self._tell(_FAILED if result.reward is None else result.reward)

    def _tell(self, reward: float) -> None:
        self._events.append(reward)
        trial = self._pending.popleft()
        if np.isnan(reward):
            self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial, reward)

    def state(self) -> dict[str, Any]:
        return {"events": np.array(self._events)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Asks and tells all over again: a sampler's own state cannot be taken out."""
        self._begin()
        for event in state["events"].tolist():
            if event == _ASKED:
                self._ask()
            else:
                self._tell(event)


def from_config(config: search_pb2.OptunaConfig, space: SearchSpace, seed: int) -> OptunaTpe:
    return OptunaTpe(space, seed=seed, num_startup_trials=config.num_startup_trials)

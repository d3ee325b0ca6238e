"""Optuna's tree-structured Parzen estimator (Bergstra et al., "Algorithms for Hyper-Parameter
Optimization", 2011): the reference from outside."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from mnasdet.errors import UserError
from mnasdet.protos import search_pb2
from mnasdet.search.controllers.controller import Result
from mnasdet.search_spaces.space import SearchSpace, Tokens


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
        self._failed = optuna.trial.TrialState.FAIL
        self._space = space
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=num_startup_trials)
        # In memory: a search that goes on replays its history, so that nothing has to be stored.
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._pending: deque[Any] = deque()

    def propose(self, n: int) -> list[Tokens]:
        return [self._ask() for _ in range(n)]

    def _ask(self) -> Tokens:
        trial = self._study.ask()
        self._pending.append(trial)
        tokens: list[int] = []
        for index, decision in enumerate(self._space.decisions):
            allowed = self._space.allowed(index, tokens)
            # A parameter of Optuna's always has the same choices. A decision that others narrow is
            # one parameter for every set of choices that they leave.
            narrowed = len(allowed) < len(decision.choices)
            name = f"{decision.name} of {allowed}" if narrowed else decision.name
            tokens.append(trial.suggest_categorical(name, allowed))
        return tuple(tokens)

    def feedback(self, results: Sequence[Result]) -> None:
        for result in results:
            trial = self._pending.popleft()
            if result.reward is None:
                self._study.tell(trial, state=self._failed)
            else:
                self._study.tell(trial, result.reward)


def from_config(config: search_pb2.OptunaConfig, space: SearchSpace, seed: int) -> OptunaTpe:
    return OptunaTpe(space, seed=seed, num_startup_trials=config.num_startup_trials)

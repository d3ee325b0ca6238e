"""The search loop: propose, train, reward, learn."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Callable, Sequence
from typing import Protocol

from absl import logging

from mnasdet.errors import Terminated, UserError
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.search.attempts import DEFAULT_PAUSES, Attempts
from mnasdet.search.candidate import Candidate, candidate
from mnasdet.search.child import ChildTask, Outcome
from mnasdet.search.controllers.controller import Controller, Result
from mnasdet.search.executors.executor import Executor
from mnasdet.search.latency import LatencySource
from mnasdet.search.limits import Limits
from mnasdet.search.reward import Reward
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore, now
from mnasdet.search_spaces.space import Tokens


class Decoder(Protocol):
    """Knows what tokens stand for."""

    def decode(self, tokens: Tokens) -> architecture_pb2.Architecture:
        """Returns the architecture of tokens."""
        ...


@dataclasses.dataclass
class Search:
    """A search and its history.

    The loop is a pure function of the seed and the children's results: trial n is proposed when
    exactly the results of trials 0 to n - max_pending have been handed to the controller, in their
    order, whichever child was done first. A search that was interrupted is resumed by running it
    again: it proposes what it proposed before, finds the results of finished trials in the store,
    and trains the rest.

    Attributes:
      pipeline: the proxy task: what a child trains on and for how long.
      space: what decodes tokens; the space of a search, or those of the groups of a second stage.
      limits: what is over them is a rejected trial and never trained.
      first: the number of its first trial: those before it in the store are of an earlier stage.
      max_pending: trials that may be without a result at once.
      seed: the child of trial n trains with seed + n.
      on_trial: is told of every trial that finishes.
      pauses: seconds before each retry of a child that the environment failed.
    """

    pipeline: pipeline_pb2.TrainEvalPipelineConfig
    store: TrialStore
    space: Decoder
    controller: Controller
    reward: Reward
    latency: LatencySource
    executor: Executor
    limits: Limits = dataclasses.field(default_factory=Limits)
    max_pending: int = 8
    first: int = 0
    seed: int = 0
    on_trial: Callable[[Trial], None] = lambda trial: None
    pauses: Sequence[float] = DEFAULT_PAUSES

    def run(self, num_trials: int) -> list[Trial]:
        """Goes on until the store holds its `num_trials` finished trials, and returns them.

        The store is this process's meanwhile. Trials whose rows are damaged are trained again.
        Whatever ends it early, trials without a result are left open in the store.

        Raises:
          UserError: another process is at work on the search of the store.
          EnvironmentFailedError: children cannot be trained, whatever their architecture.
          KeyboardInterrupt: on Ctrl-C, when the children in training are done; at once on another,
            and on SIGTERM.
        """
        with self.store.claimed():
            return self._run(num_trials)

    def _run(self, num_trials: int) -> list[Trial]:
        numbers = range(self.first, self.first + num_trials)
        # Trials of other stages may be the same networks, trained otherwise.
        self._trials = {
            trial.number: trial
            for trial in self.store.trials(drop_damaged=True)
            if trial.number in numbers
        }
        # Two token lists may stand for one network: it is trained once.
        self._first_of_key: dict[str, int] = {}
        for trial in self._trials.values():
            self._first_of_key.setdefault(trial.key, trial.number)
        self._serialized = self.pipeline.SerializeToString()
        self._children: Attempts[int] = Attempts(self.executor, self.pauses, self._proof())
        try:
            self._propose(numbers[: self.max_pending])
            for number in numbers:
                self._finish_up_to(number)
                # In the order of the trials, whichever child was done first: the controller's
                # randomness depends on what it was told, and in which order.
                self.controller.feedback([_result(self._trials[number])])
                # One proposal for every result: `max_pending` trials are open at any time, so that
                # the history of a search does not depend on which child was done first.
                if number + self.max_pending in numbers:
                    self._propose([number + self.max_pending])
        # SIGTERM gives little time: the children in training are dropped. Ctrl-C lets them end.
        except Terminated:
            raise
        except KeyboardInterrupt:
            if self._children.num_active:
                logging.warning(
                    "interrupted: %d children in training end first; Ctrl-C again drops them",
                    self._children.num_active,
                )
                for results in self._children.drain():
                    self._take(results)
            raise
        finally:
            self._leave_open()
        return [self._trials[number] for number in numbers]

    def _propose(self, numbers: Sequence[int]) -> None:
        """Takes the next trials, from the store or new in it, and begins their training."""
        new = {}
        for number, tokens in zip(numbers, self.controller.propose(len(numbers)), strict=True):
            stored = self._trials.get(number)
            if stored is None:
                new[number] = tuple(tokens)
            elif stored.tokens != tuple(tokens):
                raise UserError(
                    f"trial {number} in the store is not what this search proposes: the config, "
                    "the seed or the program has changed; use another --model_dir"
                )
        self._record(new)
        for number in numbers:
            trial = self._trials[number]
            if trial.is_finished or trial.duplicate_of is not None:
                continue
            if number not in new:  # A new one is in the store as it is.
                trial = self.store.update(trial, state=TrialState.RUNNING, started=now())
                self._trials[number] = trial
            self._children.start(number, self._task(trial))

    def _record(self, proposals: dict[int, Tokens]) -> None:
        """Writes new trials with their costs, in one transaction.

        Those over a limit are rejected at once; the others are about to be trained.
        """
        candidates = {
            number: candidate(self.pipeline, self.space.decode(tokens), tokens)
            for number, tokens in proposals.items()
        }
        costs = self._costs(candidates)
        trials = [self._new_trial(number, *found) for number, found in costs.items()]
        # Known first: what ends the search in between leaves none of them running.
        self._trials |= {trial.number: trial for trial in trials}
        self.store.add(trials)
        for trial in trials:
            if trial.is_finished:
                self.on_trial(trial)

    def _costs(self, candidates: dict[int, Candidate]) -> dict[int, tuple[Candidate, float]]:
        """Returns the candidates with their costs, which equal networks share."""
        new: dict[str, Candidate] = {}
        for number, found in candidates.items():
            # The first of equal networks alone is measured, and later trained.
            if self._first_of_key.setdefault(found.key, number) == number:
                new[found.key] = found
        if self.latency.has_to_measure(list(new.values())):
            self._wait_for_quiet()  # Children in training would disturb.
        costs = dict(zip(new, self.latency.costs(list(new.values())), strict=True))
        for found in candidates.values():
            if found.key not in costs:
                cost = self._trials[self._first_of_key[found.key]].cost
                assert cost is not None
                costs[found.key] = cost
        return {number: (found, costs[found.key]) for number, found in candidates.items()}

    def _new_trial(self, number: int, found: Candidate, cost: float) -> Trial:
        first = self._first_of_key[found.key]
        excess = self.limits.excess(found.sheet.total, cost)
        state = {}
        if excess:
            state = {"state": TrialState.REJECTED, "error": excess, "finished": now()}
        elif first >= number:
            state = {"state": TrialState.RUNNING, "started": now()}
        # A damaged row may have left a duplicate without its original: that is trained anew.
        duplicate_of = first if first < number else None
        trial = found.trial(
            number, self.seed + number, duplicate_of=duplicate_of, cost=cost, **state
        )
        trial.metrics.update(self.latency.figures(found))
        return trial

    def _task(self, trial: Trial) -> ChildTask:
        return ChildTask(
            self._serialized,
            trial.architecture,
            trial.seed,
            max_file_size=self.limits.max_file_size,
        )

    def _proof(self) -> ChildTask | None:
        """Returns a child that an earlier run of this search trained, if there is one."""
        trained = (t for t in self._trials.values() if t.state is TrialState.COMPLETE)
        first = next((trial for trial in trained if trial.duplicate_of is None), None)
        return None if first is None else self._task(first)

    def _finish_up_to(self, number: int) -> None:
        """Waits until trial `number` has a result; all before it have theirs."""
        trial = self._trials[number]
        if trial.duplicate_of is not None and not trial.is_finished:
            # A duplicate comes after its original, which has a result by now.
            twin = self._trials[trial.duplicate_of]
            self._close(trial, **{name: getattr(twin, name) for name in _RESULT})
        while not self._trials[number].is_finished:
            self._wait()

    def _wait_for_quiet(self) -> None:
        """Waits until no child is in training."""
        while self._children.num_active:
            self._take(self._children.finished())

    def _wait(self) -> None:
        """Waits until at least one child has a result."""
        self._take(self._children.finished() or self._children.fail())

    def _take(self, results: Sequence[tuple[int, Outcome]]) -> None:
        for number, outcome in results:
            self._finish(self._trials[number], outcome)

    def _leave_open(self) -> None:
        """Says in the store that nobody trains the trials any more that have no result."""
        running = [t for t in self._trials.values() if t.state is TrialState.RUNNING]
        for trial in running:
            # Neither a store that fails nor a trial that is not in it hides why the search ends.
            with contextlib.suppress(UserError):
                self.store.update(trial, state=TrialState.PENDING, started=None)

    def _finish(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.error:
            state = TrialState.REJECTED if outcome.rejected else TrialState.FAILED
            self._close(
                trial, outcome.seconds, state=state, error=outcome.error, worker=outcome.worker
            )
            return
        assert trial.cost is not None
        self._close(
            trial,
            outcome.seconds,
            state=TrialState.COMPLETE,
            metrics=trial.metrics | outcome.metrics,
            accuracy=outcome.accuracy,
            reward=self.reward(outcome.accuracy, trial.cost),
            worker=outcome.worker,
        )

    def _close(self, trial: Trial, seconds: float = 0.0, **result) -> None:
        """Stores a result, of a child that took so many seconds."""
        end = now()
        if seconds:
            # Until now the start was when the trial was written, ahead of those before it.
            result["started"] = end - datetime.timedelta(seconds=seconds)
        finished = self.store.update(trial, finished=end, **result)
        self._trials[trial.number] = finished
        self.on_trial(finished)


# The fields that a duplicate takes over.
_RESULT = ("state", "metrics", "accuracy", "cost", "reward", "error")


def _result(trial: Trial) -> Result:
    """Returns what the controller learns of a finished trial."""
    if trial.told_failed or trial.reward is None or trial.accuracy is None or trial.cost is None:
        return Result(trial.tokens)
    return Result(trial.tokens, trial.reward, (trial.accuracy, -trial.cost))

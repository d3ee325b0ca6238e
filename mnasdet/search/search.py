"""The search loop: propose, train, reward, learn."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

from absl import logging
from google.protobuf import text_format

from mnasdet import config
from mnasdet.detectors.network import DetectionNetwork, detection_network
from mnasdet.errors import Terminated, UserError
from mnasdet.evaluation.coco import MAP
from mnasdet.networks.builder import canonical_key
from mnasdet.networks.cost import CostSheet, cost_sheet
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.search.attempts import DEFAULT_PAUSES, Attempts
from mnasdet.search.child import ChildTask, Outcome
from mnasdet.search.controllers.controller import Controller, Result
from mnasdet.search.executors.executor import Executor
from mnasdet.search.latency import LatencySource
from mnasdet.search.limits import Limits
from mnasdet.search.proxy.proxy_task import of_architecture
from mnasdet.search.reward import Reward
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore, now
from mnasdet.search_spaces.space import SearchSpace, Tokens


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
      limits: what is over them is a rejected trial and never trained.
      max_pending: trials that may be without a result at once.
      seed: the child of trial n trains with seed + n.
      on_trial: is told of every trial that finishes.
      pauses: seconds before each retry of a child that the environment failed.
    """

    pipeline: pipeline_pb2.TrainEvalPipelineConfig
    store: TrialStore
    space: SearchSpace
    controller: Controller
    reward: Reward
    latency: LatencySource
    executor: Executor
    limits: Limits = dataclasses.field(default_factory=Limits)
    max_pending: int = 8
    seed: int = 0
    on_trial: Callable[[Trial], None] = lambda trial: None
    pauses: Sequence[float] = DEFAULT_PAUSES

    def run(self, num_trials: int) -> list[Trial]:
        """Goes on until the store holds `num_trials` finished trials, and returns them.

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
        self._trials = {trial.number: trial for trial in self.store.trials(drop_damaged=True)}
        self._first_of_key: dict[str, int] = {}
        for trial in self._trials.values():
            self._first_of_key.setdefault(trial.key, trial.number)
        self._children: Attempts[int] = Attempts(self.executor, self.pauses, self._proof())
        try:
            self._propose(range(min(self.max_pending, num_trials)))
            for number in range(num_trials):
                self._finish_up_to(number)
                self.controller.feedback([_result(self._trials[number])])
                if number + self.max_pending < num_trials:
                    self._propose([number + self.max_pending])
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
        return [self._trials[number] for number in range(num_trials)]

    def _propose(self, numbers: Sequence[int]) -> None:
        """The next trials, from the store or new in it, and their training begun."""
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
            if not trial.is_finished and trial.duplicate_of is None:
                self._start(trial)

    def _record(self, proposals: dict[int, Tokens]) -> None:
        """Writes new trials with their latencies; those over a limit are rejected at once."""
        described = [self._describe(number, tokens) for number, tokens in proposals.items()]
        # A network that was there before has its latency.
        new = {trial.number: sheet for trial, sheet in described if trial.duplicate_of is None}
        if self.latency.has_to_measure(list(new.values())):
            self._wait_for_quiet()  # Children in training would disturb.
        latencies_ms = self.latency.latencies_ms(list(new.values()))
        measured = dict(zip(new, latencies_ms, strict=True))
        trials = []
        for trial, sheet in described:
            latency_ms = (
                measured[trial.number]
                if trial.duplicate_of is None
                else self._trials[trial.duplicate_of].latency_ms
            )
            assert latency_ms is not None
            trial = dataclasses.replace(trial, latency_ms=latency_ms)
            if excess := self.limits.excess(sheet.total, latency_ms):
                trial = dataclasses.replace(
                    trial, state=TrialState.REJECTED, error=excess, finished=now()
                )
            self._trials[trial.number] = trial
            trials.append(trial)
        self.store.add(trials)
        for trial in trials:
            if trial.is_finished:
                self.on_trial(trial)

    def _describe(self, number: int, tokens: Tokens) -> tuple[Trial, CostSheet]:
        """A new trial and the cost sheet of its network."""
        architecture = self.space.decode(tokens)
        network = build_network(self.pipeline, architecture)
        sheet = cost_sheet(network.outputs)
        key = canonical_key(network.outputs)
        first = self._first_of_key.setdefault(key, number)
        trial = Trial(
            number=number,
            tokens=tokens,
            architecture=text_format.MessageToString(architecture),
            key=key,
            seed=self.seed + number,
            # A damaged row may have left a duplicate without its original: that is trained anew.
            duplicate_of=first if first < number else None,
            metrics={
                "params": sheet.total.params,
                "multiply_adds": sheet.total.multiply_adds,
            },
        )
        return trial, sheet

    def _start(self, trial: Trial) -> None:
        trial = self.store.update(trial, state=TrialState.RUNNING, started=now())
        self._trials[trial.number] = trial
        self._children.start(trial.number, self._task(trial))

    def _task(self, trial: Trial) -> ChildTask:
        architecture = text_format.Parse(trial.architecture, architecture_pb2.Architecture())
        return ChildTask(
            of_architecture(self.pipeline, architecture).SerializeToString(),
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
        # A store that fails is why the search ends; it would fail here again for every trial.
        with contextlib.suppress(UserError):
            for trial in self._trials.values():
                if trial.state is TrialState.RUNNING:
                    self.store.update(trial, state=TrialState.PENDING, started=None)

    def _finish(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.error:
            state = TrialState.REJECTED if outcome.rejected else TrialState.FAILED
            self._close(trial, state=state, error=outcome.error, worker=outcome.worker)
            return
        # pycocotools says -1 where there is nothing to find.
        accuracy = max(outcome.metrics[MAP], 0.0)
        assert trial.latency_ms is not None
        self._close(
            trial,
            state=TrialState.COMPLETE,
            metrics=trial.metrics | outcome.metrics,
            reward=self.reward(accuracy, trial.latency_ms),
            worker=outcome.worker,
        )

    def _close(self, trial: Trial, **result) -> None:
        finished = self.store.update(trial, finished=now(), **result)
        self._trials[trial.number] = finished
        self.on_trial(finished)


# What a duplicate takes over.
_RESULT = ("state", "metrics", "latency_ms", "reward", "error")


def _result(trial: Trial) -> Result:
    """What the controller learns of a finished trial."""
    if trial.told_failed or trial.reward is None or trial.latency_ms is None:
        return Result(trial.tokens)
    return Result(trial.tokens, trial.reward, (max(trial.metrics[MAP], 0.0), -trial.latency_ms))


def build_network(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, architecture: architecture_pb2.Architecture
) -> DetectionNetwork:
    """The graph of an architecture as the pipeline's detector."""
    return detection_network(
        architecture,
        config.image_size(of_architecture(pipeline, architecture)),
        pipeline.model.ssd.num_classes,
    )

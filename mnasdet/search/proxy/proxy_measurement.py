"""The trainings by which a proxy task is judged: several short ones and a long one of each of some
architectures."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnasdet.errors import UserError
from mnasdet.protos import pipeline_pb2
from mnasdet.search.attempts import DEFAULT_PAUSES
from mnasdet.search.candidate import candidate
from mnasdet.search.child import ChildTask, Outcome
from mnasdet.search.executors.executor import Executor
from mnasdet.search.latency import LatencySource
from mnasdet.search.limits import Limits
from mnasdet.search.training_queue import outcomes
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore, now
from mnasdet.search_spaces.space import SearchSpace

LONG = "long"

# The distance between the seeds of two architectures: more than one will ever be trained with.
_SEEDS = 1000

# After this number of draws in a row without a new network within the limits, the space has
# no more.
_FRUITLESS_DRAWS = 1000


def sample(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    space: SearchSpace,
    count: int,
    seed: int,
    limits: Limits | None = None,
    latency: LatencySource | None = None,
) -> list[Trial]:
    """Draws random different networks, as trials that are still to come.

    The first ones do not depend on `count`.

    Args:
      limits: a search would reject what is over them, so no proxy has to judge it.
      latency: needed for a limit on it.

    Raises:
      UserError: the space has too few.
    """
    rng = np.random.default_rng(seed)
    found: dict[str, Trial] = {}
    fruitless = 0
    while len(found) < count:
        tokens = space.sample(rng)
        drawn = candidate(pipeline, space.decode(tokens), tokens)
        cost = latency.costs([drawn])[0] if latency else None
        excess = (limits or Limits()).excess(drawn.sheet.total, cost or 0.0)
        if excess or drawn.key in found:
            fruitless += 1
            if fruitless == _FRUITLESS_DRAWS:
                raise UserError(
                    f"--num_architectures={count}: the search space seems to have only "
                    f"{len(found)} different networks within the limits"
                )
            continue
        fruitless, number = 0, len(found)
        found[drawn.key] = drawn.trial(number, seed + _SEEDS * number, cost=cost)
    return list(found.values())


class Series:
    """The sampled architectures, each trained once in the same way: a search of its own in a trial
    store, trial n of architecture n.

    Attributes:
      name: "proxy_0", "proxy_1", ... or "long".
      pipeline: what is trained.
      trials: by number, as they are by now.
    """

    def __init__(
        self,
        database: Path,
        name: str,
        pipeline: pipeline_pb2.TrainEvalPipelineConfig,
        architectures: Sequence[Trial],
    ) -> None:
        """Adds the trials that the database lacks.

        Raises:
          UserError: it holds others.
        """
        self.name = name
        self.pipeline = pipeline
        self._store = TrialStore(database, name)
        # None of the short trainings may share its noise with the long one.
        offset = _SEEDS - 1 if name == LONG else int(name.rpartition("_")[2])
        wanted = [dataclasses.replace(trial, seed=trial.seed + offset) for trial in architectures]
        held = {trial.number: trial for trial in self._store.trials(drop_damaged=True)}
        known = [trial for trial in wanted if trial.number in held]
        if any((t.key, t.seed) != (held[t.number].key, held[t.number].seed) for t in known):
            self.close()
            raise UserError(
                f"{database}: {name} holds other architectures: the config, the seed or the "
                "program has changed; use another --model_dir"
            )
        # A run that was interrupted goes on with what it holds; more architectures may be asked
        # for.
        self._store.add([trial for trial in wanted if trial.number not in held])
        self.trials = [held.get(trial.number, trial) for trial in wanted]

    def start(self, number: int) -> Trial:
        return self._update(number, state=TrialState.RUNNING, started=now())

    def finish(self, number: int, outcome: Outcome) -> Trial:
        state = TrialState.REJECTED if outcome.rejected else TrialState.FAILED
        return self._update(
            number,
            state=state if outcome.error else TrialState.COMPLETE,
            metrics=self.trials[number].metrics | outcome.metrics,
            accuracy=None if outcome.error else outcome.accuracy,
            error=outcome.error,
            worker=outcome.worker,
            finished=now(),
        )

    def _update(self, number: int, **changes: Any) -> Trial:
        self.trials[number] = self._store.update(self.trials[number], **changes)
        return self.trials[number]

    @property
    def accuracies(self) -> list[float]:
        """Returns the accuracy of every architecture; NaN where there is none."""
        return [_accuracy(trial) for trial in self.trials]

    def close(self) -> None:
        self._store.close()


def run(
    series: Sequence[Series],
    executor: Executor,
    max_running: int = 1,
    max_file_size: int = 0,
    on_trial: Callable[[Series, Trial], None] = lambda series, trial: None,
    pauses: Sequence[float] = DEFAULT_PAUSES,
) -> None:
    """Trains what is not finished.

    Args:
      max_running: the executor's workers. No more, so that a trial's time is that of its training.
      on_trial: is told of every trial that finishes.
      pauses: those of `outcomes`.

    Raises:
      EnvironmentFailedError: as `outcomes`.
    """

    def tasks() -> Iterator[tuple[tuple[Series, int], ChildTask]]:
        for one, number in unfinished(series):
            trial = one.start(number)
            pipeline = one.pipeline.SerializeToString()
            yield (one, number), ChildTask(pipeline, trial.architecture, trial.seed, max_file_size)

    for (one, number), outcome in outcomes(executor, tasks(), max_running, pauses):
        on_trial(one, one.finish(number, outcome))


def unfinished(series: Sequence[Series]) -> list[tuple[Series, int]]:
    return [(one, trial.number) for one in series for trial in one.trials if not trial.is_finished]


def by_architecture(proxies: Sequence[Series], long: Series) -> list[dict[str, Any]]:
    """Returns the results of each architecture, as JSON has them."""
    return [
        {
            "architecture": trial.number,
            "key": trial.key,
            "params": trial.metrics["params"],
            "multiply_adds": trial.metrics["multiply_adds"],
            "proxy_accuracies": [_json(one.accuracies[trial.number]) for one in proxies],
            "long_accuracy": _json(long.accuracies[trial.number]),
            "errors": [
                one.trials[trial.number].error
                for one in itertools.chain(proxies, [long])
                if one.trials[trial.number].error
            ],
        }
        for trial in long.trials
    ]


def median_seconds(series: Iterable[Series]) -> float | None:
    """Returns the median time of a training with its evaluation."""
    complete = [t for one in series for t in one.trials if t.state is TrialState.COMPLETE]
    return statistics.median(trial.seconds or 0.0 for trial in complete) if complete else None


def _accuracy(trial: Trial) -> float:
    return math.nan if trial.accuracy is None else trial.accuracy


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value

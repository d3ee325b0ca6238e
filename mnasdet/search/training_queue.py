"""Trainings one after the other, or side by side where there are several workers."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TextIO, TypeVar

from mnasdet.protos import search_pb2
from mnasdet.search.attempts import DEFAULT_PAUSES, Attempts
from mnasdet.search.child import ChildTask, Outcome
from mnasdet.search.executors.executor import Executor
from mnasdet.search.pace import Pace

_T = TypeVar("_T")


def num_workers(config: search_pb2.ExecutorConfig) -> int:
    """Returns how many trainings the executor of a config does at once."""
    name = config.WhichOneof("executor_oneof")
    return getattr(config, name).num_workers if name in ("worker_processes", "ray") else 1


def outcomes(
    executor: Executor,
    tasks: Iterable[tuple[_T, ChildTask]],
    max_running: int,
    pauses: Sequence[float] = DEFAULT_PAUSES,
) -> Iterator[tuple[_T, Outcome]]:
    """Yields the outcome of every task, with what it came with, as soon as it is there.

    The next task is taken when a worker is free for it: what `tasks` does then happens when the
    training starts.

    Args:
      pauses: seconds before each retry of a child that the environment failed.

    Raises:
      EnvironmentFailedError: children cannot be trained, whatever their architecture.
    """
    children: Attempts[_T] = Attempts(executor, pauses)
    for label, task in tasks:
        children.start(label, task)
        # A training that waited in the executor would count its waiting as training time.
        while children.num_active >= max_running:
            yield from children.finished()
    # The retries of children that the environment failed come after the last task, too.
    while len(children):
        yield from children.finished() or children.fail()


class QueueProgress:
    """Prints a line for every training that ends, with the time that the rest will take.

    The time is "-" until every worker has done a first training and one more is done.
    """

    def __init__(
        self,
        works: Iterable[float],
        num_done: int = 0,
        num_workers: int = 1,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Args:
        works: of the trainings to come, in any unit: twice the work takes twice the time.
        num_done: trainings of an earlier run.
        num_workers: trainings that run at once.
        stream: gets the lines; standard error by default.
        clock: seconds; the time elapsed starts now.
        """
        works = list(works)
        self._num_trainings, self._done = num_done + len(works), num_done
        self._work = sum(works)
        self._pace = Pace(num_workers, clock)
        self._stream = stream or sys.stderr
        if num_done:
            self._print(f"resumed: {num_done} of {self._num_trainings} trainings are done")

    def __call__(self, work: float, result: str) -> None:
        self._done += 1
        self._work -= work
        self._pace.add(work)
        # A sum of floats may not come down to exactly 0.
        left = self._work if self._done < self._num_trainings else 0.0
        remaining = self._pace.remaining(left)
        eta = "-" if remaining is None else _duration(remaining)
        self._print(
            f"training {self._done}/{self._num_trainings}  {result}  "
            f"elapsed {_duration(self._pace.elapsed)}  ETA {eta}"
        )

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


def _duration(seconds: float) -> str:
    """Returns a duration such as "1:02:03"."""
    return str(datetime.timedelta(seconds=max(0, round(seconds))))

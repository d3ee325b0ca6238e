"""Trainings of children, each tried again where the environment failed it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from absl import logging

from mnasdet.errors import UserError
from mnasdet.search.child import ChildTask, Outcome
from mnasdet.search.executors.executor import Executor

_T = TypeVar("_T")

# Seconds before each retry. A lost worker is replaced in one; data on a network comes back later.
_PAUSES = (1.0, 30.0, 60.0)
DEFAULT_PAUSES = _PAUSES[:2]

# So many children that failed every time, and none trained meanwhile, are proof enough.
_MOST_GIVEN_UP = 5


def pauses(max_retries: int) -> tuple[float, ...]:
    """Returns the seconds that are waited before each of `max_retries` retries."""
    more = max(max_retries - len(_PAUSES), 0)
    return (_PAUSES + more * _PAUSES[-1:])[:max_retries]


class EnvironmentFailedError(UserError):
    """Children cannot be trained, whatever their architecture. Says why."""


@dataclass
class _Child(Generic[_T]):
    label: _T
    task: ChildTask
    failures: int = 0
    first_failed: float = 0.0  # time.monotonic()
    retry_at: float = 0.0
    error: str = ""
    worker: str = ""


class Attempts(Generic[_T]):
    """Children in training, and children that wait to be trained again.

    A failure has one of two causes. If the architecture failed (it diverged, or went over a limit),
    the failure is the child's result. If the environment failed (`Outcome.environmental`), it says
    nothing about the architecture, and the child is trained again after a pause.

    A child that fails every time is judged by the others. If another child began after its first
    failure and was trained, then the environment works and this child is what does not: it has
    failed. If none was, the environment is down, and an `EnvironmentFailedError` leaves all open.
    """

    def __init__(self, executor: Executor, pauses: Sequence[float] = DEFAULT_PAUSES):
        """`pauses`: seconds before each retry."""
        self._executor = executor
        self._pauses = tuple(pauses)
        self._running: dict[Future[Outcome], _Child[_T]] = {}
        self._waiting: list[_Child[_T]] = []
        self._given_up: list[_Child[_T]] = []
        # When the last child that was trained began.
        self._last_good_start = float("-inf")
        self._num_trained = self._num_blamed = 0

    def __len__(self) -> int:
        """Returns the number of children without a result."""
        return self.num_active + len(self._given_up)

    @property
    def num_active(self) -> int:
        """The number of children that are in training or will be again."""
        return len(self._running) + len(self._waiting)

    def start(self, label: _T, task: ChildTask) -> None:
        """Trains a child, soon; `finished` returns its outcome under `label`."""
        self._submit(_Child(label, task))

    def finished(self) -> list[tuple[_T, Outcome]]:
        """Waits until at least one child has a result, and returns the new results.

        There are none when no child is active any more: those that are left failed every time, and
        only another child can show whether that is their own fault.

        Raises:
          EnvironmentFailedError: many children failed every time, or more than were trained.
        """
        results: list[tuple[_T, Outcome]] = []
        while not results and self.num_active:
            self._retry_due()
            results += self._wait()
            results += self._blamed()
        return results

    def fail(self) -> NoReturn:
        """Raises EnvironmentFailedError for the children that failed every time."""
        last = self._given_up[-1]
        raise EnvironmentFailedError(
            f"children cannot be trained: {last.error} ({last.failures} times); nothing is lost: "
            "mend that, then the same command with --resume goes on"
        )

    def drain(self) -> list[tuple[_T, Outcome]]:
        """Waits for the children in training and returns their results; nothing is tried again."""
        results: list[tuple[_T, Outcome]] = []
        self._waiting.clear()
        while self._running:
            results += self._wait()
        return results

    def _submit(self, child: _Child[_T]) -> None:
        self._running[self._executor.submit(child.task)] = child

    def _retry_due(self) -> None:
        due = [child for child in self._waiting if child.retry_at <= time.monotonic()]
        for child in due:
            self._waiting.remove(child)
            self._submit(child)

    def _wait(self) -> list[tuple[_T, Outcome]]:
        """Returns results, none if a retry is due first."""
        next_retry = min((child.retry_at for child in self._waiting), default=None)
        seconds = None if next_retry is None else max(next_retry - time.monotonic(), 0.0)
        if not self._running:
            time.sleep(seconds or 0.0)
            return []
        done, _ = wait(self._running, timeout=seconds, return_when=FIRST_COMPLETED)
        results = []
        for future in done:
            outcome = future.result()
            child = self._running.pop(future)
            if outcome.environmental:
                self._put_aside(child, outcome)
                continue
            if outcome.error is None:
                self._num_trained += 1
                begun = time.monotonic() - outcome.seconds
                self._last_good_start = max(self._last_good_start, begun)
            results.append((child.label, outcome))
        return results

    def _put_aside(self, child: _Child[_T], outcome: Outcome) -> None:
        """Keeps a child that the environment failed: for a retry, or for judgement."""
        now = time.monotonic()
        if not child.failures:
            child.first_failed = now
        child.error, child.worker = outcome.error or "", outcome.worker
        child.failures += 1
        if child.failures > len(self._pauses):
            self._given_up.append(child)
            return
        pause = self._pauses[child.failures - 1]
        child.retry_at = now + pause
        self._waiting.append(child)
        logging.warning(
            "%s%s; retry %d of %d in %g s",
            child.error,
            f" ({child.worker})" if child.worker else "",
            child.failures,
            len(self._pauses),
            pause,
        )

    def _blamed(self) -> list[tuple[_T, Outcome]]:
        """Returns the children that failed every time while others were trained."""
        results = []
        for child in list(self._given_up):
            if child.first_failed >= self._last_good_start:
                continue
            if self._num_blamed >= self._num_trained:
                self.fail()
            self._given_up.remove(child)
            self._num_blamed += 1
            logging.warning(
                "%s: one child failed %d times while others were trained",
                child.error,
                child.failures,
            )
            results.append((child.label, Outcome(error=child.error, worker=child.worker)))
        if not results and len(self._given_up) >= _MOST_GIVEN_UP:
            self.fail()
        return results

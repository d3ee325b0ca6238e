"""Trainings of children, each tried again where the environment failed it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
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

# Where no child was ever trained, this number of failed ones is proof enough.
_MOST_GIVEN_UP = 5


def pauses(max_retries: int) -> tuple[float, ...]:
    """Returns the seconds that are waited before each of `max_retries` retries."""
    more = max(max_retries - len(_PAUSES), 0)
    return (_PAUSES + more * _PAUSES[-1:])[:max_retries]


class EnvironmentFailedError(UserError):
    """Children cannot be trained, whatever their architecture. Says why."""


@dataclass
class _Child(Generic[_T]):
    """One child; without a label it is a proof."""

    label: _T | None
    task: ChildTask
    failures: int = 0
    retry_at: float = 0.0  # time.monotonic()
    error: str = ""
    worker: str = ""


class Attempts(Generic[_T]):
    """Children in training, and children that wait to be trained again.

    A failure has one of two causes. If the architecture failed (it diverged, or went over a limit),
    the failure is the child's result. If the environment failed (`Outcome.environmental`), it says
    nothing about the architecture, and the child is trained again after a pause.

    A child that fails every time is judged by a proof: a child that was trained before is trained
    once more. If that works, so does the environment, and the child has failed. If it does not, or
    no child was ever trained, the environment is down: `EnvironmentFailedError` leaves all open.
    """

    def __init__(
        self,
        executor: Executor,
        pauses: Sequence[float] = DEFAULT_PAUSES,
        proof: ChildTask | None = None,
    ):
        """
        Args:
          pauses: seconds before each retry.
          proof: a child that was trained before; the first one that is trained here by default.
        """
        self._executor = executor
        self._pauses = tuple(pauses)
        self._proof = proof
        self._running: dict[Future[Outcome], _Child[_T]] = {}
        self._waiting: list[_Child[_T]] = []
        self._given_up: list[_Child[_T]] = []
        # The members of `_given_up` that the proof in training is about.
        self._accused: list[_Child[_T]] = []
        self._is_down = False

    def __len__(self) -> int:
        """Returns the number of children without a result."""
        children = [*self._running.values(), *self._waiting, *self._given_up, *self._accused]
        return sum(child.label is not None for child in children)

    @property
    def num_active(self) -> int:
        """Returns the number of children that are in training or will be again."""
        return len(self._running) + len(self._waiting)

    def start(self, label: _T, task: ChildTask) -> None:
        """Trains a child, soon; `finished` returns its outcome under `label`."""
        self._submit(_Child(label, task))

    def finished(self) -> list[tuple[_T, Outcome]]:
        """Waits until at least one child has a result, and returns the new results.

        There are none when no child is active any more: those that are left failed every time, and
        only a child that can be trained can show whether that is their own fault.

        Raises:
          EnvironmentFailedError: children cannot be trained; all results were returned before.
        """
        results: list[tuple[_T, Outcome]] = []
        while not results and self.num_active:
            self._retry_due()
            results += self._wait()
            self._seek_proof()
        # Results come first: the search stores them before it ends.
        if not results and (self._is_down or len(self._given_up) >= _MOST_GIVEN_UP):
            self.fail()
        return results

    def fail(self) -> NoReturn:
        """Raises EnvironmentFailedError for the children that failed every time."""
        last = self._given_up[-1]
        raise EnvironmentFailedError(
            f"children cannot be trained: {last.error} ({last.failures} times); nothing is lost: "
            "mend that, then the same command with --resume goes on"
        )

    def drain(self) -> Iterator[list[tuple[_T, Outcome]]]:
        """Yields results until no child is in training; nothing is tried again."""
        self._is_down = True
        while self._running:
            yield self._wait()

    def _submit(self, child: _Child[_T]) -> None:
        self._running[self._executor.submit(child.task)] = child

    def _retry_due(self) -> None:
        due = [child for child in self._waiting if child.retry_at <= time.monotonic()]
        for child in due:
            self._waiting.remove(child)
            self._submit(child)

    def _wait(self) -> list[tuple[_T, Outcome]]:
        """Returns results, none if a retry is due first."""
        # A retry that is due must not wait for a result.
        next_retry = min((child.retry_at for child in self._waiting), default=None)
        seconds = None if next_retry is None else max(next_retry - time.monotonic(), 0.0)
        if not self._running:
            time.sleep(seconds or 0.0)
            return []
        done, _ = wait(self._running, timeout=seconds, return_when=FIRST_COMPLETED)
        results: list[tuple[_T, Outcome]] = []
        for future in done:
            outcome = future.result()
            child = self._running.pop(future)
            if child.label is None:
                results += self._judged(outcome)
            elif outcome.environmental:
                self._put_aside(child, outcome)
            else:
                results.append((child.label, outcome))
                # A child that was trained shows that the environment works.
                if outcome.error is None and self._proof is None:
                    self._proof = child.task
        return results

    def _put_aside(self, child: _Child[_T], outcome: Outcome) -> None:
        """Keeps a child that the environment failed: for a retry, or for judgement."""
        child.error, child.worker = outcome.error or "", outcome.worker
        child.failures += 1
        # Once the environment is known to be down, pauses would only delay the end.
        if self._is_down or child.failures > len(self._pauses):
            self._given_up.append(child)
            return
        pause = self._pauses[child.failures - 1]
        child.retry_at = time.monotonic() + pause
        self._waiting.append(child)
        logging.warning(
            "%s%s; retry %d of %d in %g s",
            child.error,
            f" ({child.worker})" if child.worker else "",
            child.failures,
            len(self._pauses),
            pause,
        )

    def _seek_proof(self) -> None:
        """Trains a child that was trained before, where children wait for judgement."""
        if self._given_up and self._proof and not self._accused and not self._is_down:
            # All at once: one proof is enough for every child that failed before it.
            self._accused, self._given_up = self._given_up, []
            self._submit(_Child(None, self._proof))

    def _judged(self, proof: Outcome) -> list[tuple[_T, Outcome]]:
        """Returns the children that the proof was about as failed, if it was trained."""
        accused, self._accused = self._accused, []
        if proof.environmental:
            self._is_down = True
            # Trainings go on to their ends; none is begun.
            self._given_up += [*accused, *self._waiting]
            self._waiting.clear()
            return []
        results = []
        for child in accused:
            logging.warning(
                "%s: the child failed %d times, and another could be trained meanwhile",
                child.error,
                child.failures,
            )
            assert child.label is not None
            results.append((child.label, Outcome(error=child.error, worker=child.worker)))
        return results

"""The part that executors with workers share: who trains what, and what follows a lost worker."""

from __future__ import annotations

import abc
import dataclasses
import itertools
import queue
import threading
import time
from concurrent.futures import Future
from typing import Protocol

from mnasdet.search.child import ChildTask, Outcome

_INTERRUPTED = "interrupted: the search ended first"


# A worker that could not start so long ago is started again for the next child.
_SECONDS_TO_TRUST_TROUBLE = 1.0


class WorkerLost(Exception):
    """A worker has died through no known fault of its child; says how."""


class Worker(Protocol):
    """Trains one child at a time, and stays warm for the next one."""

    @property
    def name(self) -> str:
        """Returns the process, and its machine if there are several."""
        ...

    def wait_until_ready(self) -> None:
        """Raises WorkerLost if it dies before it is."""
        ...

    def run(self, task: ChildTask) -> Outcome:
        """Raises WorkerLost if it dies, and whatever bug of ours the child met."""
        ...

    def is_fit(self) -> bool:
        """Returns whether it lives and can take another child."""
        ...

    def close(self) -> None:
        """Ends it, and with it what `run` and `wait_until_ready` wait for in other threads."""
        ...


@dataclasses.dataclass
class _Job:
    number: int
    task: ChildTask
    future: Future[Outcome] = dataclasses.field(default_factory=Future)


class WorkerPool(abc.ABC):
    """An executor that keeps `num_workers` workers.

    Each has a thread, which takes a child only once its worker is ready: a worker that cannot
    start, because its machine is gone or taken, holds no child up. The outcome of a child whose
    worker was lost is `environmental`.
    """

    def __init__(self, num_workers: int):
        self._num_workers = num_workers
        # Earlier children first: one whose worker died while idle does not wait behind new ones.
        self._jobs: queue.PriorityQueue[tuple[float, _Job | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._threads: list[threading.Thread] = []
        self._workers: set[Worker] = set()
        self._closing = False

    @abc.abstractmethod
    def _start_worker(self, index: int) -> Worker:
        """Starts worker `index` of `num_workers`, without waiting until it is ready."""

    def submit(self, task: ChildTask) -> Future[Outcome]:
        job = _Job(next(self._numbers), task)
        self._jobs.put((job.number, job))
        if len(self._threads) < self._num_workers:
            index = len(self._threads)
            thread = threading.Thread(
                target=self._serve, args=(index,), name=f"worker {index}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        return job.future

    def close(self) -> None:
        self._closing = True
        for worker in list(self._workers):
            worker.close()
        for _ in self._threads:
            self._jobs.put((float("inf"), None))
        for thread in self._threads:
            thread.join()
        while not self._jobs.empty():
            _, job = self._jobs.get()
            if job and _is_wanted(job):
                job.future.set_result(Outcome(error=_INTERRUPTED, environmental=True))

    def _serve(self, index: int) -> None:
        """Serves in one worker's thread: child after child, in worker after worker."""
        worker: Worker | None = None
        tried = 0.0
        while not self._closing:
            trouble: Exception | None = None
            if worker is None or not worker.is_fit():
                self._drop(worker)
                worker, trouble = self._new_worker(index)
                tried = time.monotonic()
            _, job = self._jobs.get()
            if job is None:
                break
            if not _is_wanted(job):
                continue
            if self._closing or (worker and not worker.is_fit()):
                # It died while it waited for work; the child has not met it.
                self._jobs.put((job.number, job))
            elif worker is None and time.monotonic() - tried > _SECONDS_TO_TRUST_TROUBLE:
                self._jobs.put((job.number, job))  # The fault may be mended by now.
            elif worker is None:
                assert trouble is not None
                self._end_in_trouble(job, trouble, "")
            else:
                self._run(worker, job)
        self._drop(worker)

    def _new_worker(self, index: int) -> tuple[Worker | None, Exception | None]:
        """Returns a worker that is ready, or why there is none."""
        worker: Worker | None = None
        try:
            worker = self._start_worker(index)
            self._workers.add(worker)
            if self._closing:  # `close` may have missed it.
                worker.close()
            worker.wait_until_ready()
        except Exception as trouble:
            self._drop(worker)
            return None, trouble
        return worker, None

    def _drop(self, worker: Worker | None) -> None:
        if worker:
            worker.close()
            self._workers.discard(worker)

    def _run(self, worker: Worker, job: _Job) -> None:
        begun = time.monotonic()
        try:
            outcome = worker.run(job.task)
        except Exception as trouble:
            if isinstance(trouble, WorkerLost):
                worker.close()  # It may live, and only be out of reach.
            self._end_in_trouble(job, trouble, worker.name)
        else:
            seconds = time.monotonic() - begun
            job.future.set_result(dataclasses.replace(outcome, worker=worker.name, seconds=seconds))

    def _end_in_trouble(self, job: _Job, trouble: Exception, worker: str) -> None:
        """Ends a child whose worker was lost; hands on what is no loss."""
        if self._closing:
            job.future.set_result(Outcome(error=_INTERRUPTED, worker=worker, environmental=True))
        elif isinstance(trouble, WorkerLost):
            job.future.set_result(
                Outcome(error=f"worker lost: {trouble}", worker=worker, environmental=True)
            )
        else:
            job.future.set_exception(trouble)


def _is_wanted(job: _Job) -> bool:
    """Returns False for a cancelled job; from now on it cannot be cancelled."""
    return job.future.running() or job.future.set_running_or_notify_cancel()

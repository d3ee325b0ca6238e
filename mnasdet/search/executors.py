"""Where children are trained: in this process, or in warm worker processes."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from absl import logging

from mnasdet.protos import search_pb2
from mnasdet.search import child

_SECONDS_TO_END = 5.0

RunChild = Callable[[child.ChildTask], child.Outcome]


class Executor(Protocol):
    """Trains children. `submit` gives a future that always ends in an outcome."""

    def submit(self, task: child.ChildTask) -> Future[child.Outcome]: ...

    def close(self) -> None:
        """Ends what is running, at once."""
        ...


class ThisProcess:
    """One child after the other, here."""

    def __init__(self, run_child: RunChild = child.run_safely):
        self._run_child = run_child

    def submit(self, task: child.ChildTask) -> Future[child.Outcome]:
        future: Future[child.Outcome] = Future()
        outcome = self._run_child(task)
        future.set_result(dataclasses.replace(outcome, worker="this process"))
        return future

    def close(self) -> None:
        pass


class WorkerProcesses:
    """Children in processes that live on, so that TensorFlow is loaded once a worker.

    A worker that dies takes only its child with it: the child is tried again in a new worker,
    `max_retries` times. A child that exceeds its time ends with its worker, and has failed.
    """

    def __init__(
        self,
        num_workers: int,
        *,
        threads_per_worker: int = 0,
        max_trial_seconds: float = 0.0,
        max_retries: int = 2,
        run_child: RunChild = child.run_safely,
    ):
        """`threads_per_worker` 0 shares out the cores; `max_trial_seconds` 0 sets no limit."""
        self._threads = threads_per_worker or max(1, (os.cpu_count() or 1) // num_workers)
        self._seconds = max_trial_seconds or None
        self._max_retries = max_retries
        self._run_child = run_child
        # A thread a worker: it waits for its process, and keeps it warm for the next child.
        self._pool = ThreadPoolExecutor(num_workers, thread_name_prefix="worker")
        self._here = threading.local()
        self._workers: set[_Worker] = set()
        self._closing = False

    def submit(self, task: child.ChildTask) -> Future[child.Outcome]:
        return self._pool.submit(self._run, task)

    def close(self) -> None:
        self._closing = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for worker in list(self._workers):
            worker.close()
        self._pool.shutdown(wait=True)

    def _run(self, task: child.ChildTask) -> child.Outcome:
        for attempt in range(self._max_retries + 1):
            worker = self._worker()
            try:
                return worker.run(task, self._seconds)
            except TimeoutError:
                self._drop(worker)
                return child.Outcome(
                    error=f"took longer than {self._seconds:.0f} s", worker=worker.name
                )
            except EOFError:
                self._drop(worker)
                lost = child.Outcome(error=f"worker lost: {worker.death()}", worker=worker.name)
                if self._closing:
                    return lost
                logging.warning("%s; attempt %d", lost.error, attempt + 1)
        return lost

    def _worker(self) -> _Worker:
        if getattr(self._here, "worker", None) is None:
            self._here.worker = _Worker(self._run_child, self._threads)
            self._workers.add(self._here.worker)
        return self._here.worker

    def _drop(self, worker: _Worker) -> None:
        worker.kill()
        self._workers.discard(worker)
        self._here.worker = None


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, run_child: RunChild, threads: int):
        # Spawned, not forked: TensorFlow's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        self._process = context.Process(
            target=_work, args=(far_end, run_child, threads), daemon=True
        )
        self._process.start()
        far_end.close()
        self.name = f"process {self._process.pid}"
        self._busy = False

    def run(self, task: child.ChildTask, seconds: float | None) -> child.Outcome:
        """Raises TimeoutError after `seconds`, EOFError if the process dies."""
        self._busy = True
        try:
            self._pipe.send(task)
            if not self._pipe.poll(seconds):
                raise TimeoutError
            outcome = self._pipe.recv()
        except ConnectionError as error:
            raise EOFError from error
        self._busy = False
        if isinstance(outcome, BaseException):
            raise outcome
        return dataclasses.replace(outcome, worker=self.name)

    def close(self) -> None:
        """Lets an idle process end by itself; ends one that trains."""
        if not self._busy:
            self._pipe.close()
            self._process.join(_SECONDS_TO_END)
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def death(self) -> str:
        code = self._process.exitcode
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit status {code}"


def _work(pipe, run_child: RunChild, threads: int) -> None:
    """The worker's side: a child after the other until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the search to handle.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from mnasdet.training import runtime

    runtime.use_threads(threads)
    logging.set_verbosity(logging.WARNING)
    with contextlib.suppress(EOFError):
        while True:
            task = pipe.recv()
            try:
                pipe.send(run_child(task))
            except Exception as bug:  # Shown by the search, in the process the user sees.
                pipe.send(bug)


def _end_with_parent() -> None:
    """A search that was killed leaves no worker behind."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


def from_config(proto: search_pb2.ExecutorConfig) -> Executor:
    """As the `executor` message says."""
    if proto.WhichOneof("executor_oneof") != "worker_processes":
        return ThisProcess()
    workers = proto.worker_processes
    return WorkerProcesses(
        workers.num_workers,
        threads_per_worker=workers.threads_per_worker,
        max_trial_seconds=workers.max_trial_seconds,
        max_retries=proto.max_retries,
    )

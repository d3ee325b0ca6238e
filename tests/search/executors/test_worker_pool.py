"""Tests the threads of workers, whatever the workers are."""

import functools
import time

from mnasdet.search.executors import worker_pool
from mnasdet.search.executors.worker_pool import WorkerLost, WorkerPool
from tests.search import cheap_children
from tests.search.executors.cheap_workers import TASK, running, wait_for


class _Here:
    """A worker that is no process."""

    name = "here"

    def wait_until_ready(self):
        pass

    def run(self, task):
        return cheap_children.accuracy(task)

    def is_fit(self):
        return True

    def close(self):
        pass


class _Pool(WorkerPool):
    """Its workers start once `trouble` is None; `starts` are the troubles met so far."""

    def __init__(self, num_workers, **_):
        super().__init__(num_workers)
        self.trouble = WorkerLost("no such machine")
        self.starts = []

    def _start_worker(self, index):
        self.starts.append(self.trouble)
        if self.trouble:
            raise self.trouble
        return _Here()


pool = functools.partial(running, _Pool, None)


def test_a_trouble_of_long_ago_does_not_end_a_later_child(monkeypatch):
    monkeypatch.setattr(worker_pool, "_SECONDS_TO_TRUST_TROUBLE", 0.2)
    with pool() as executor:
        first = executor.submit(TASK).result()
        assert (first.error, first.environmental) == ("worker lost: no such machine", True)
        # The thread has tried again, and waits for a child.
        wait_for(lambda: len(executor.starts) >= 2)
        time.sleep(0.3)
        executor.trouble = None
        later = executor.submit(TASK).result()
    assert later.error is None
    assert later.metrics == cheap_children.accuracy(TASK).metrics
    assert executor.starts[-1] is None


def test_a_child_meets_the_trouble_of_its_own_time(monkeypatch):
    monkeypatch.setattr(worker_pool, "_SECONDS_TO_TRUST_TROUBLE", 0.2)
    with pool() as executor:
        executor.submit(TASK).result()
        wait_for(lambda: len(executor.starts) >= 2)
        time.sleep(0.3)
        executor.trouble = WorkerLost("the machine is full")
        assert executor.submit(TASK).result().error == "worker lost: the machine is full"

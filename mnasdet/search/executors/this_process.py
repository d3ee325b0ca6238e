"""Children in the search's own process."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import Future

from mnasdet.search import child
from mnasdet.search.executors.executor import RunChild


class ThisProcess:
    """One child after the other, here; what kills a child ends the search."""

    def __init__(self, run_child: RunChild = child.run_safely):
        self._run_child = run_child

    def submit(self, task: child.ChildTask) -> Future[child.Outcome]:
        future: Future[child.Outcome] = Future()
        begun = time.monotonic()
        outcome = self._run_child(task)
        seconds = time.monotonic() - begun
        future.set_result(dataclasses.replace(outcome, worker="this process", seconds=seconds))
        return future

    def close(self) -> None:
        pass

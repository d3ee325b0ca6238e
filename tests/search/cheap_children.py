"""Children that take no training: importable, so that worker processes can run them."""

from __future__ import annotations

import hashlib
import os
import signal
import time

from mnasdet.evaluation.coco import MAP
from mnasdet.search.child import ChildTask, Outcome


def accuracy(task: ChildTask) -> Outcome:
    """An accuracy in [0, 1) that depends on the architecture and the seed, and on nothing else."""
    digest = hashlib.sha256(f"{task.architecture}{task.seed}".encode()).digest()
    return Outcome(metrics={MAP: int.from_bytes(digest[:4], "big") / 2**32})


def dies(task: ChildTask) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def dies_once(task: ChildTask) -> Outcome:
    """Dies the first time; `task.architecture` is a file that remembers."""
    if not os.path.exists(task.architecture):
        open(task.architecture, "w").close()
        os.kill(os.getpid(), signal.SIGSEGV)
    return Outcome(metrics={MAP: 0.5})


def hangs(task: ChildTask) -> Outcome:
    time.sleep(600)
    raise AssertionError("unreachable")


def diverges(task: ChildTask) -> Outcome:
    return Outcome(error="training diverged: the loss is nan at step 3")


def has_a_bug(task: ChildTask) -> Outcome:
    raise ZeroDivisionError("a bug of ours")


def process_id(task: ChildTask) -> Outcome:
    time.sleep(0.05)
    return Outcome(metrics={MAP: float(os.getpid())})

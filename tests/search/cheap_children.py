"""Children that take no training: importable, so that workers can run them."""

from __future__ import annotations

import ctypes
import hashlib
import math
import os
import signal
import subprocess
import sys
import time

from mnasdet.evaluation.coco import MAP
from mnasdet.search.child import ChildTask, Outcome, trained
from mnasdet.search.executors.executor import Executor


def prepare_nothing(threads: int) -> None:
    """Spares a worker loading TensorFlow."""


def prepare_if_whole(threads: int) -> None:
    """Fails while the file that the environment names is there."""
    if os.path.exists(os.environ["BROKEN"]):
        raise ImportError("libstdc++.so.6: cannot open shared object file")


def accuracy(task: ChildTask) -> Outcome:
    """An accuracy in [0, 1) that depends on the architecture and the seed, and on nothing else."""
    digest = hashlib.sha256(f"{task.architecture}{task.seed}".encode()).digest()
    return trained({MAP: int.from_bytes(digest[:4], "big") / 2**32}, MAP)


def slow_accuracy(task: ChildTask) -> Outcome:
    """As `accuracy`, each architecture with a time of its own."""
    time.sleep(0.02 + hashlib.sha256(task.architecture.encode()).digest()[0] / 255 * 0.1)
    return accuracy(task)


def slower_accuracy(task: ChildTask) -> Outcome:
    """Leaves time for a node to come up."""
    time.sleep(0.4)
    return slow_accuracy(task)


def dies(task: ChildTask) -> Outcome:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def crashes(task: ChildTask) -> Outcome:
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError("unreachable")


def exits(task: ChildTask) -> Outcome:
    os._exit(7)


def dies_once(task: ChildTask) -> Outcome:
    """Dies the first time; `task.architecture` is a file that remembers."""
    if not os.path.exists(task.architecture):
        open(task.architecture, "w").close()
        os.kill(os.getpid(), signal.SIGSEGV)
    return trained({MAP: 0.5}, MAP)


def crashes_if_seeded_so(task: ChildTask) -> Outcome:
    return crashes(task) if task.seed == 18 else accuracy(task)


def hangs(task: ChildTask) -> Outcome:
    time.sleep(600)
    raise AssertionError("unreachable")


def hangs_once(task: ChildTask) -> Outcome:
    """Writes its process into the file `task.architecture` and hangs, if there is no such file."""
    if not os.path.exists(task.architecture):
        with open(task.architecture, "w") as file:
            file.write(str(os.getpid()))
        time.sleep(600)
    return trained({MAP: 0.5}, MAP)


def holds_the_interpreter_s_lock(task: ChildTask) -> Outcome:
    """Writes its process into the file `task.architecture`; no other thread of it runs then."""
    with open(task.architecture, "w") as file:
        file.write(str(os.getpid()))
    ctypes.PyDLL(None).sleep(600)
    raise AssertionError("unreachable")


def is_stopped(task: ChildTask) -> Outcome:
    """Writes its process into the file `task.architecture` and stops all of its group."""
    with open(task.architecture, "w") as file:
        file.write(str(os.getpid()))
    os.killpg(os.getpgrp(), signal.SIGSTOP)
    raise AssertionError("unreachable")


def its_process_hangs(task: ChildTask) -> Outcome:
    """Writes a process that it starts into the file `task.architecture`."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(task.architecture, "w") as file:
        file.write(str(process.pid))
    process.wait()
    raise AssertionError("unreachable")


def hangs_if_named_so(task: ChildTask) -> Outcome:
    return hangs(task) if task.architecture == "hangs" else process_id(task)


def diverges(task: ChildTask) -> Outcome:
    return Outcome(error="training diverged: the loss is nan at step 3")


def has_a_bug(task: ChildTask) -> Outcome:
    raise ZeroDivisionError("a bug of ours")


class _TwoArguments(Exception):
    def __init__(self, first: str, second: str):
        super().__init__(f"{first} {second}")


def has_a_bug_that_does_not_pickle(task: ChildTask) -> Outcome:
    raise _TwoArguments("a", "bug")


def process_id(task: ChildTask) -> Outcome:
    time.sleep(0.05)
    return trained({MAP: float(os.getpid())}, MAP)


def outcomes_of_all(executor: Executor, num_workers: int) -> list[Outcome]:
    """Outcomes of as many children as it takes until all workers have had one."""
    outcomes: list[Outcome] = []
    end = time.monotonic() + 60
    while len({outcome.worker for outcome in outcomes}) < num_workers:
        assert time.monotonic() < end, "some workers have nothing to do"
        futures = [executor.submit(ChildTask(b"", "architecture", 0)) for _ in range(10)]
        outcomes += [future.result() for future in futures]
    return outcomes


def visible_devices(task: ChildTask) -> Outcome:
    time.sleep(0.05)
    return trained({MAP: float(os.environ.get("CUDA_VISIBLE_DEVICES", -1))}, MAP)


def takes_300_mb(task: ChildTask) -> Outcome:
    taken = bytearray(300 * 2**20)
    time.sleep(600)
    return trained({MAP: float(len(taken))}, MAP)


def its_process_takes_300_mb(task: ChildTask) -> Outcome:
    """Writes that process into the file `task.architecture`."""
    code = "import time; taken = bytearray(300 * 2**20); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code])
    with open(task.architecture, "w") as file:
        file.write(str(process.pid))
    process.wait()
    raise AssertionError("unreachable")


_kept: list[bytearray] = []


def keeps_60_mb(task: ChildTask) -> Outcome:
    _kept.append(bytearray(60 * 2**20))
    return process_id(task)


def prints(task: ChildTask) -> Outcome:
    print("printed by a child", flush=True)
    return accuracy(task)


def kills_its_watchdog_once(task: ChildTask) -> Outcome:
    """Ends the Ray actor above it the first time; `task.architecture` is a file that remembers."""
    if not os.path.exists(task.architecture):
        open(task.architecture, "w").close()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    return trained({MAP: 0.5}, MAP)


def ends_badly(task: ChildTask) -> Outcome:
    """By its seed: takes all memory, returns NaN, hangs, crashes, or is good."""
    match task.seed:
        case 10:
            return takes_300_mb(task)
        case 12:
            return trained({MAP: math.nan}, MAP)
        case 15:
            return hangs(task)
        case 18:
            return crashes(task)
    return accuracy(task)

"""A process that trains child after child, so that TensorFlow is loaded once."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from mnasdet.search import child
from mnasdet.search.executors.executor import RunChild
from mnasdet.search.executors.worker_pool import WorkerLost

_SECONDS_BETWEEN_CHECKS = 0.2
_SECONDS_TO_START = 600.0
_SECONDS_TO_DIE = 5.0

# A worker whose memory has grown by more since its first child is replaced before the next one.
# 100 children of quickstart.config at 64x64 grew it by 70 MB, half of that in the first five.
MAX_GROWTH_MB = 500.0

# Our own interpreter with our own search path, but not our __main__: a script needs no guard.
_START = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
from mnasdet.search.executors import worker_main
worker_main.main(int(sys.argv[2]))
"""

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # Spares TensorFlow from loading Keras 3.
    "TF_USE_LEGACY_KERAS": "1",
    # Several workers may share a GPU; none may take all of its memory at once.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a process runs children.

    Attributes:
      prepare: what the process does first, given its number of threads.
      max_trial_seconds: of one child, 0: no limit.
      max_memory_mb: resident memory of the process and its children, TensorFlow's own few
        hundred included; 0: no limit. Megabytes of 2^20 bytes, here and below.
      environment: variables of the process, set before it loads anything.
    """

    run_child: RunChild = child.run_safely
    prepare: Callable[[int], None] = child.prepare
    threads: int = 1
    max_trial_seconds: float = 0.0
    max_memory_mb: int = 0
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Bug:
    """An exception that a child raised, with the worker's traceback."""

    error: BaseException
    traceback: str


class _RemoteTraceback(Exception):
    """The cause of a bug's exception, where it is shown."""


class _LimitExceeded(Exception):
    """A child takes too much; says of what."""


class WarmProcess:
    """A process, its pipe, and what may end it.

    Killing it is the only way to end it: there is nothing that it would have to put in order. It
    and what it has started end when the process that started it does.

    Attributes:
      growth_mb: by how much its resident memory has grown since its first child.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self._pipe, far_end = multiprocessing.Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path), str(far_end.fileno())],
            # Held open, and closed by the system when we die.
            stdin=subprocess.PIPE,
            # Standard output is the search's.
            stdout=2,
            env={**_ENVIRONMENT, **os.environ, **settings.environment},
            pass_fds=[far_end.fileno()],
            # A group of its own: out of Ctrl-C's reach, and killed with all it has started.
            start_new_session=True,
        )
        # Ours is the near end: the pipe closes with the process alone if nobody else holds the far
        # one.
        far_end.close()
        self.name = f"process {self._process.pid}"
        self._closed = False
        self._memory_at_first_mb: float | None = None
        self.growth_mb = 0.0

    def wait_until_ready(self) -> None:
        """Raises WorkerLost if it dies before it is, or takes minutes."""
        try:
            self._exchange(self._settings, _SECONDS_TO_START)
        except _LimitExceeded:
            self.close()
            raise WorkerLost(f"did not start within {_SECONDS_TO_START:.0f} s") from None

    def run(self, task: child.ChildTask) -> child.Outcome:
        """Raises WorkerLost if it dies, and the child's own exception.

        A child that exceeds a limit has failed, and its process is killed.
        """
        limits = self._settings
        try:
            outcome = self._exchange(task, limits.max_trial_seconds, limits.max_memory_mb)
        except _LimitExceeded as limit:
            self.close()
            return child.Outcome(error=str(limit))
        if isinstance(outcome, Bug):
            raise outcome.error from _RemoteTraceback(outcome.traceback)
        self._measure_growth()
        return outcome

    def is_fit(self) -> bool:
        """Returns whether it lives, and its memory has not grown too much from child to child."""
        return self._process.poll() is None and self.growth_mb <= MAX_GROWTH_MB

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        # The child may have started others, which are of the same group. macOS says PermissionError
        # of a
        # process that has ended already.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        # Not the pipe, where another thread may still be waiting: it goes with its last user.
        self._process.stdin.close()  # type: ignore[union-attr]

    def resident_mb(self) -> float:
        """Returns the resident memory of the process and its children; 0 if it is dead.

        Pages that they share count more than once.
        """
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self._process.pid)
            return sum(map(_resident_mb, [process, *process.children(recursive=True)]))
        return 0.0

    def _exchange(self, message: Any, max_seconds: float, max_memory_mb: int = 0) -> Any:
        """Returns the process's answer. Raises WorkerLost, _LimitExceeded."""
        end = time.monotonic() + max_seconds if max_seconds else float("inf")
        try:
            self._pipe.send(message)
            while not self._pipe.poll(min(_SECONDS_BETWEEN_CHECKS, max(end - time.monotonic(), 0))):
                if time.monotonic() >= end:
                    raise _LimitExceeded(f"took longer than {max_seconds:g} s")
                if max_memory_mb and (used := self.resident_mb()) > max_memory_mb:
                    raise _LimitExceeded(
                        f"out of memory: used {used:.0f} MB of the {max_memory_mb} MB that "
                        "max_memory_mb allows"
                    )
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise WorkerLost(self._death()) from error

    def _measure_growth(self) -> None:
        used = self.resident_mb()
        # Growth counts from the first child: loading TensorFlow is no leak.
        if self._memory_at_first_mb is None:
            self._memory_at_first_mb = used
        self.growth_mb = used - self._memory_at_first_mb

    def _death(self) -> str:
        """Returns how it died; it may be a moment before the system says."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            status = self._process.wait(_SECONDS_TO_DIE)
            if status >= 0:
                return f"exit status {status}"
            name = signal.Signals(-status).name
            # So the kernel ends what takes too much memory; another sender does not say either.
            return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return "closed its pipe"


def _resident_mb(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 2**20
    except psutil.NoSuchProcess:
        return 0.0

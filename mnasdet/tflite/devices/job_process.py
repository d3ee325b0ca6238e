"""A process that measures: it takes one JSON job a line, and answers each with a JSON result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Mapping
from typing import Any

from mnasdet import cores
from mnasdet.errors import UserError


class JobProcess:
    """A process of our own interpreter that does one job after the other; a context manager."""

    def __init__(
        self,
        module: str,
        *,
        pinned: Collection[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Takes what the process runs.

        Args:
          module: reads jobs from standard input and writes results to standard output.
          pinned: the cores that the process may use; none: all.
          environment: further variables.
        """
        self._module = module
        self._pinned = pinned
        self._environment = environment or {}

    def __enter__(self) -> JobProcess:
        # A file, as nobody reads a pipe while the process runs: full, it would block the process.
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **self._environment},
        )
        if self._pinned:
            # Ahead of the first job: the libraries make their threads then, and they inherit the
            # cores.
            cores.pin(self._process.pid, set(self._pinned))
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, job: Mapping[str, Any], about: str, timeout_seconds: float) -> dict[str, Any]:
        """Returns the result of a job.

        Args:
          about: what the job measures, for messages.

        Raises:
          UserError: the process answers with an error, dies, or takes too long.
        """
        assert self._process.stdin
        assert self._process.stdout
        timed_out = threading.Event()

        def stop() -> None:
            timed_out.set()
            self._process.kill()

        # readline() has no timeout; a killed process closes the pipe and ends it.
        timer = threading.Timer(timeout_seconds, stop)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        finally:
            timer.cancel()
        if timed_out.is_set():
            raise UserError(f"{about}: no result within {timeout_seconds:g} s; the benchmark hangs")
        if not answer:
            raise UserError(f"{about}: the benchmark's process died: {self._death()}")
        result = json.loads(answer)
        if "error" in result:
            raise UserError(result["error"])
        return result

    def _death(self) -> str:
        status = self._process.wait()
        if status < 0:
            name = signal.Signals(-status).name
            return f"{name} (out of memory?)" if name == "SIGKILL" else name
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"status {status}"

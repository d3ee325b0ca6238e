"""Times TFLite graphs on this machine, in a process of their own."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from mnasdet.errors import ConfigError, UserError
from mnasdet.tflite.interpreter import read_graph


def benchmark(
    graph: str | os.PathLike,
    *,
    num_threads: int = 1,
    num_runs: int = 50,
    warmup_runs: int = 10,
    taskset: str = "",
    timeout_seconds: float = 600.0,
) -> dict[str, Any]:
    """Latency and memory of one graph, and where they were measured.

    Args:
      graph: a TFLite file.
      taskset: as `Worker` takes it.
      timeout_seconds: for loading and all runs together.

    Raises:
      UserError: the graph cannot be run, or the process died or did not answer in time.
    """
    content = read_graph(graph)
    with Worker(taskset) as worker:
        result = worker.run(
            graph,
            num_threads=num_threads,
            num_runs=num_runs,
            warmup_runs=warmup_runs,
            timeout_seconds=timeout_seconds,
        )
    runs = np.asarray(result.pop("runs_ms"))
    p10, p90 = np.percentile(runs, [10, 90])
    return {
        "median_ms": float(np.median(runs)),
        "mean_ms": float(runs.mean()),
        "p10_ms": float(p10),
        "p90_ms": float(p90),
        "std_ms": float(runs.std()),
        **result,
        "num_runs": len(runs),
        "warmup_runs": warmup_runs,
        "model_bytes": len(content),
        "provenance": provenance(num_threads)
        | {
            "taskset": taskset,
            "graph": os.fspath(graph),
            "graph_sha256": hashlib.sha256(content).hexdigest(),
        },
    }


def check_host(device: str) -> None:
    """Raises ConfigError for a device whose single layers cannot be measured."""
    if device != "host":
        raise ConfigError(
            f"--device={device}: layers are measured on host, this machine, only; "
            "benchmark_tflite measures whole graphs on a phone"
        )


def provenance(num_threads: int) -> dict[str, Any]:
    """What figures measured here depend on."""
    return {
        "device": "host",
        "cpu": cpu_model(),
        "operating_system": platform.platform(),
        "python": platform.python_version(),
        "runtime": f"ai-edge-litert {metadata.version('ai-edge-litert')}",
        "num_threads": num_threads,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


class Worker:
    """A process that times one graph after the other; a context manager."""

    def __init__(self, taskset: str = "") -> None:
        """`taskset` is the hexadecimal mask of the cores to run on, as `adb shell taskset` takes
        it ("3" for the first two); empty for all."""
        self._cores = cores(taskset)

    def __enter__(self) -> Worker:
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mnasdet.tflite.benchmark_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        if self._cores:
            os.sched_setaffinity(self._process.pid, self._cores)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    def run(
        self,
        graph: str | os.PathLike,
        *,
        num_threads: int,
        num_runs: int,
        warmup_runs: int,
        max_seconds: float | None = None,
        timeout_seconds: float,
    ) -> dict[str, Any]:
        """The result of `benchmark_worker.run`; raises UserError where there is none."""
        job = {
            "graph": os.fspath(graph),
            "num_threads": num_threads,
            "num_runs": num_runs,
            "warmup_runs": warmup_runs,
            "max_seconds": max_seconds,
        }
        assert self._process.stdin
        assert self._process.stdout
        timed_out = threading.Event()

        def stop() -> None:
            timed_out.set()
            self._process.kill()

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
            raise UserError(f"{graph}: no result within {timeout_seconds:g} s; the benchmark hangs")
        if not answer:
            raise UserError(f"{graph}: the benchmark's process died: {self._death()}")
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


def cores(taskset: str) -> set[int]:
    """The cores of this machine in a hexadecimal mask, none if it is empty; raises ConfigError."""
    if not taskset:
        return set()
    if not hasattr(os, "sched_setaffinity"):
        raise ConfigError("--taskset: this operating system cannot pin a process to cores")
    try:
        mask = int(taskset, 16)
    except ValueError:
        mask = 0
    chosen = {core for core in range(mask.bit_length()) if mask >> core & 1}
    available = os.sched_getaffinity(0)
    if mask <= 0 or not chosen <= available:
        allowed = sum(1 << core for core in available)
        raise ConfigError(
            f"--taskset={taskset}: a hexadecimal mask of cores is needed; all are {allowed:x}"
        )
    return chosen

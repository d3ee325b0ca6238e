"""This machine: times TFLite graphs with its Python's own runtime, in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import numpy as np

from mnasdet import cores
from mnasdet.errors import ConfigError
from mnasdet.tflite.devices import locks
from mnasdet.tflite.devices.device import DeviceSpec, timed
from mnasdet.tflite.devices.job_process import JobProcess
from mnasdet.tflite.devices.provenance import host_condition, of_host

# The most runs, and seconds, of a graph in a quick measurement.
_QUICK_RUNS = 100
_QUICK_SECONDS = 0.02


@contextmanager
def opened(spec: DeviceSpec) -> Iterator[Host]:
    """Yields this machine, held for this process alone among those that measure.

    Raises:
      ConfigError: it does not have the cores.
    """
    with locks.first_free(["host"]), Worker(spec.options.taskset) as worker:
        yield Host(worker, spec)


def provenance(spec: DeviceSpec) -> dict[str, Any]:
    """Returns what figures measured here depend on."""
    import platform

    return of_host(
        f"ai-edge-litert {metadata.version('ai-edge-litert')}",
        spec.options.num_threads,
        spec.options.taskset,
        python=platform.python_version(),
    )


class Host:
    """A Device."""

    def __init__(self, worker: Worker, spec: DeviceSpec) -> None:
        self._worker = worker
        self._spec = spec

    def provenance(self) -> dict[str, Any]:
        return provenance(self._spec)

    def benchmark(self, graph: str | os.PathLike) -> dict[str, Any]:
        options = self._spec.options

        def execute() -> dict[str, Any]:
            return figures(self._run(graph, options.num_runs, options.warmup_runs))

        return timed(self, self._spec, graph, host_condition, execute)

    def quick_ms(self, graphs: Sequence[str | os.PathLike]) -> list[float]:
        results = [
            # The first run, which never counts, is enough to warm up.
            self._run(graph, _QUICK_RUNS, 0, _QUICK_SECONDS, evict_cache=True)
            for graph in graphs
        ]
        return [float(np.median(result["runs_ms"])) for result in results]

    def _run(
        self,
        graph: str | os.PathLike,
        num_runs: int,
        warmup_runs: int,
        max_seconds: float | None = None,
        evict_cache: bool = False,
    ) -> dict[str, Any]:
        return self._worker.run(
            graph,
            num_threads=self._spec.options.num_threads,
            num_runs=num_runs,
            warmup_runs=warmup_runs,
            max_seconds=max_seconds,
            evict_cache=evict_cache,
            timeout_seconds=self._spec.timeout_seconds,
        )


def figures(result: dict[str, Any]) -> dict[str, Any]:
    """Returns the result of a worker with the keys of `benchmark_model.read`.

    Args:
      result: of `benchmark_worker.run`.
    """
    runs = np.asarray(result["runs_ms"])
    warmup = result["warmup_runs_ms"]
    p5, p10, median, p90, p95 = (float(p) for p in np.percentile(runs, [5, 10, 50, 90, 95]))
    loaded, peak = (result[name] - result["process_memory_mb"] for name in ("loaded_mb", "peak_mb"))
    return {
        "median_ms": median,
        "mean_ms": float(runs.mean()),
        "p5_ms": p5,
        "p10_ms": p10,
        "p90_ms": p90,
        "p95_ms": p95,
        "std_ms": float(runs.std()),
        "min_ms": float(runs.min()),
        "max_ms": float(runs.max()),
        "init_ms": result["init_ms"],
        "first_ms": result["first_ms"],
        "warmup_ms": float(np.mean(warmup)) if warmup else None,
        "num_runs": len(runs),
        "process_memory_mb": result["process_memory_mb"],
        "init_memory_mb": loaded,
        "overall_memory_mb": peak,
        "peak_memory_mb": result["peak_mb"],
        "warnings": [],
        "delegates": {},
    }


class Worker:
    """A process that times one graph after the other; a context manager."""

    def __init__(self, taskset: str = "") -> None:
        """Starts on the cores of `taskset`, a hexadecimal mask as `adb shell taskset` takes it.

        "3" stands for the first two; empty for all.
        """
        self.process = JobProcess(
            "mnasdet.tflite.devices.benchmark_worker", pinned=masked_cores(taskset)
        )

    def __enter__(self) -> Worker:
        self.process.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.__exit__(*exception)

    def run(
        self,
        graph: str | os.PathLike,
        *,
        num_threads: int,
        num_runs: int,
        warmup_runs: int,
        max_seconds: float | None = None,
        evict_cache: bool = False,
        timeout_seconds: float,
    ) -> dict[str, Any]:
        """Returns the result of `benchmark_worker.run`; raises UserError where there is none."""
        job = {
            "graph": os.fspath(graph),
            "num_threads": num_threads,
            "num_runs": num_runs,
            "warmup_runs": warmup_runs,
            "max_seconds": max_seconds,
            "evict_cache": evict_cache,
        }
        return self.process.run(job, os.fspath(graph), timeout_seconds)


def masked_cores(taskset: str) -> set[int]:
    """Returns the cores in a hexadecimal mask, none if it is empty; raises ConfigError."""
    if not taskset:
        return set()
    if not cores.can_pin():
        raise ConfigError("--taskset: this operating system cannot pin a process to cores")
    try:
        mask = int(taskset, 16)
    except ValueError:
        mask = 0
    chosen = {core for core in range(mask.bit_length()) if mask >> core & 1}
    available = cores.available()
    if mask <= 0 or not chosen <= available:
        allowed = sum(1 << core for core in available)
        raise ConfigError(
            f"--taskset={taskset}: a hexadecimal mask of cores is needed; all are {allowed:x}"
        )
    return chosen

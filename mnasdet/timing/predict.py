"""Times whole models in TensorFlow on this machine, from the network's input to what it finds."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

from mnasdet.blueprint import Blueprint
from mnasdet.tflite.devices import host, locks
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.devices.job_process import JobProcess
from mnasdet.tflite.devices.provenance import host_condition, of_host
from mnasdet.tflite.devices.repeats import repeated
from mnasdet.timing.predict_worker import encoded

# Runs that are not counted, after the first: TensorFlow optimises a graph when it is first called,
# and oneDNN's primitives are cached by then.
_WARMUP_RUNS = 2

# The limit of one execution: a large detector takes seconds for a picture, and an execution that
# is repeated until three agree has no need of twenty of them.
_MAX_SECONDS = 5.0

_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    # Spares TensorFlow from loading Keras 3.
    "TF_USE_LEGACY_KERAS": "1",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
}

# The benchmark's keys are those of `repeats.repeated`, with provenance.
Benchmark = Callable[[Blueprint], dict[str, Any]]


class PredictTimer:
    """Times `Task.predict` of one blueprint after the other: batches of one, fresh weights.

    The process that measures starts with the first of them and stays until `close`.
    """

    def __init__(self, spec: DeviceSpec) -> None:
        """Takes how to measure.

        Args:
          spec: of it num_threads, num_runs, repeats and timeout_seconds count.
        """
        self._spec = spec
        self._stack = contextlib.ExitStack()
        self._process: JobProcess | None = None
        # A search has no end of its own at which it could close what told it latencies.
        weakref.finalize(self, self._stack.close)

    @contextlib.contextmanager
    def held(self) -> Iterator[Benchmark]:
        """Yields the benchmark, with this machine held for this process alone."""
        with locks.first_free(["host"]):
            try:
                yield self._benchmark
            except BaseException:
                # It may be in the middle of a job, whose answer would pass for that of the next.
                self.close()
                raise

    def close(self) -> None:
        """Ends the process; another measurement starts a new one."""
        self._process = None
        self._stack.close()

    def _benchmark(self, blueprint: Blueprint) -> dict[str, Any]:
        spec = self._spec
        if self._process is None:
            self._process = self._stack.enter_context(
                JobProcess("mnasdet.timing.predict_worker", environment=_ENVIRONMENT)
            )
        process = self._process
        job = {
            "blueprint": encoded(blueprint),
            "num_threads": spec.options.num_threads,
            "num_runs": spec.options.num_runs,
            "warmup_runs": _WARMUP_RUNS,
            "max_seconds": _MAX_SECONDS,
        }
        about = f"predict of {blueprint.architecture.name or 'a model'}"

        def execute() -> dict[str, Any]:
            return host.figures(process.run(job, about, spec.timeout_seconds))

        before = host_condition()
        result = repeated(execute, spec.repeats)
        return result | {
            "warmup_runs": _WARMUP_RUNS,
            "provenance": provenance(spec) | {"before": before, "after": host_condition()},
        }


def provenance(spec: DeviceSpec) -> dict[str, Any]:
    """Returns what figures measured here depend on."""
    import platform

    return of_host(
        f"tensorflow {_tensorflow_version()}",
        spec.options.num_threads,
        taskset="",
        python=platform.python_version(),
    )


def _tensorflow_version() -> str:
    for name in ("tensorflow", "tensorflow-cpu", "tensorflow-macos"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return "of an unknown version"

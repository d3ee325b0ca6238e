"""Times TFLite graphs with TFLite's own `benchmark_model` on this machine, and repeats that."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mnasdet.errors import ConfigError, UserError
from mnasdet.tflite import benchmark_model
from mnasdet.tflite.benchmark import cores, provenance
from mnasdet.tflite.interpreter import read_graph


@dataclass(frozen=True)
class Repeats:
    """How often the binary is executed: until its figures agree.

    Attributes:
      min_repeats, max_repeats: executions; at least two.
      max_spread: (p90 - p10) / median of the executions' own medians up to which they agree. For
        binaries that print no median the means stand in.
    """

    min_repeats: int = 3
    max_repeats: int = 10
    max_spread: float = 0.05

    def __post_init__(self) -> None:
        if not 2 <= self.min_repeats <= self.max_repeats:
            raise ConfigError(
                f"--repeats={self.min_repeats}, --max_repeats={self.max_repeats}: 2 <= repeats <= "
                "max_repeats is needed"
            )


def benchmark(
    graph: str | os.PathLike,
    binary: str | os.PathLike,
    options: benchmark_model.Options,
    repeats: Repeats,
    *,
    timeout_seconds: float = 600.0,
) -> dict[str, Any]:
    """Latency and memory of one graph on this machine, by the binary.

    Args:
      graph: a TFLite file.
      binary: `benchmark_model`, built for this machine.
      timeout_seconds: for one execution.

    Returns:
      As `repeated`, with model_bytes and provenance.

    Raises:
      UserError: the graph or the binary is missing, or as `benchmark_model.read`.
    """
    content = read_graph(graph)
    program = check_binary(binary)
    cores(options.taskset)  # raises where this machine does not have them
    words = options.command(os.fspath(program), os.fspath(graph))

    def execute() -> dict[str, Any]:
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_seconds,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{binary}: no end within {timeout_seconds:g} s; it hangs") from None
        except OSError as error:
            raise UserError(f"{binary}: cannot be executed: {error.strerror}") from None
        status = done.returncode if done.returncode >= 0 else 128 - done.returncode
        output = done.stdout.decode(errors="replace")
        return benchmark_model.read(output, status, options, os.fspath(binary))

    result = repeated(execute, repeats)
    here = provenance(options.num_threads)
    del here["python"]
    return result | {
        "warmup_runs": options.warmup_runs,
        "model_bytes": len(content),
        "provenance": here | measured(graph, content, binary, options),
    }


def check_binary(binary: str | os.PathLike) -> Path:
    """Its absolute path; raises UserError where there is no such file."""
    path = Path(binary)
    if not path.is_file():
        raise UserError(f"{binary}: no such file; tflite/README.md says where benchmark_model is")
    return path.resolve()


def repeated(execute: Callable[[], dict[str, Any]], repeats: Repeats) -> dict[str, Any]:
    """Executes until the figures agree.

    Args:
      execute: gives what `benchmark_model.read` does.

    Returns:
      The keys of `benchmark_model.read`, every figure as the median over the executions, num_runs
      as their sum; repeats_ms, the median of every execution; spread, and noisy: whether it
      exceeds the bound.
    """
    results: list[dict[str, Any]] = []
    spread = float("inf")
    while len(results) < repeats.min_repeats or (
        spread > repeats.max_spread and len(results) < repeats.max_repeats
    ):
        results.append(execute())
        typical = [_typical_ms(result) for result in results]
        p10, median, p90 = np.percentile(typical, [10, 50, 90])
        # A run may take less than the microsecond that the binary counts in.
        spread = float((p90 - p10) / median) if median else 0.0
    last = results[-1]
    figures = {
        name: [result[name] for result in results] for name in last if name.endswith(("_ms", "_mb"))
    }
    return last | {
        **{name: _median(values) for name, values in figures.items()},
        "num_runs": sum(result["num_runs"] for result in results),
        "repeats_ms": typical,
        "spread": spread,
        "noisy": spread > repeats.max_spread,
    }


def _median(values: list[float | None]) -> float | None:
    return None if None in values else float(np.median(np.asarray(values, float)))


def _typical_ms(result: dict[str, Any]) -> float:
    return result["mean_ms"] if result["median_ms"] is None else result["median_ms"]


def measured(
    graph: str | os.PathLike,
    content: bytes,
    binary: str | os.PathLike,
    options: benchmark_model.Options,
) -> dict[str, Any]:
    """The part of a provenance that says what was run."""
    return {
        "runtime": "benchmark_model " + _sha256(Path(binary).read_bytes())[:12],
        "num_threads": options.num_threads,
        "taskset": options.taskset,
        "graph": os.fspath(graph),
        "graph_sha256": _sha256(content),
    }


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

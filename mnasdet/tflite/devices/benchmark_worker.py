"""The process that times TFLite graphs: a JSON job a line in, a JSON result a line out.

It loads the TFLite runtime and NumPy and nothing else, so that neither TensorFlow's threads nor
its memory get into the figures.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from mnasdet.errors import UserError
from mnasdet.tflite.interpreter import load, read_graph

# More than a core's own cache, less than what the cores share.
_CACHE_BYTES = 4 << 20


def run(
    graph: str,
    num_threads: int,
    num_runs: int,
    warmup_runs: int,
    max_seconds: float | None,
    evict_cache: bool,
) -> dict:
    """Times one graph on random inputs in [-1, 1].

    Args:
      warmup_runs: after the first run, not counted.
      max_seconds: no further run is begun behind this.
      evict_cache: a run finds in the core's own cache nothing of the run before: a layer in a
        network would not either.

    Returns:
      init_ms, first_ms, warmup_runs_ms and runs_ms (lists), and the process's peak memory:
      process_memory_mb before the graph is loaded, loaded_mb and peak_mb in the end; or error.
    """
    try:
        content = read_graph(graph)
        forget_peak_memory()
        process_memory_mb = peak_memory_mb()
        start = time.perf_counter()
        interpreter = load(content, num_threads, graph)
        init_ms = 1e3 * (time.perf_counter() - start)
        loaded_mb = peak_memory_mb()
    except UserError as error:
        return {"error": str(error)}
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        values = rng.uniform(-1, 1, detail["shape"]).astype(detail["dtype"])
        interpreter.set_tensor(detail["index"], values)
    # Adding to it before every run takes its place in the core's cache.
    other = np.zeros(_CACHE_BYTES if evict_cache else 0, np.uint8)

    def invoke_ms() -> float:
        np.add(other, 1, out=other)
        start = time.perf_counter()
        interpreter.invoke()
        return 1e3 * (time.perf_counter() - start)

    first_ms = invoke_ms()
    warmup_runs_ms = [invoke_ms() for _ in range(warmup_runs)]
    runs_ms: list[float] = []
    # The first run allocates and is told by itself.
    start = time.perf_counter()
    while len(runs_ms) < num_runs:
        runs_ms.append(invoke_ms())
        if max_seconds and time.perf_counter() - start > max_seconds:
            break
    return {
        "init_ms": init_ms,
        "first_ms": first_ms,
        "warmup_runs_ms": warmup_runs_ms,
        "runs_ms": runs_ms,
        "process_memory_mb": process_memory_mb,
        "loaded_mb": loaded_mb,
        "peak_mb": peak_memory_mb(),
    }


def forget_peak_memory() -> None:
    """Makes the peak start from here: it is that of this graph, not of those before. Linux only."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Returns the peak resident memory. Linux lets `getrusage` start from the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    for job in sys.stdin:
        print(json.dumps(run(**json.loads(job))), flush=True)

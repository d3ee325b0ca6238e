"""Times a TFLite graph, here or on a phone: latency, loading, memory, and where it was measured.

  python scripts/benchmark_tflite.py --graph=runs/bccd/tflite/detect.tflite --num_threads=1 \\
    --taskset=1 --output=benchmark.json

On a phone, through adb, with TFLite's own benchmark_model (tflite/README.md):

  python scripts/benchmark_tflite.py --graph=runs/bccd/tflite/detect.tflite --device=adb \\
    --benchmark_binary=android_aarch64_benchmark_model --taskset=f0 --use_gpu
"""

from __future__ import annotations

import json
from typing import Any

from absl import flags

from mnasdet.errors import ConfigError
from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_format_flag()
flags.DEFINE_string("graph", None, "TFLite file.", required=True)
flags.DEFINE_string(
    "device",
    "host",
    "Where to run it: host is this machine; adb the only Android device that is connected, "
    "adb:SERIAL that one, adb:SERIAL,SERIAL the first of them that is free.",
)
flags.DEFINE_integer("num_threads", 1, "Of the runtime.", lower_bound=1)
flags.DEFINE_integer("num_runs", 50, "Runs that count.", lower_bound=1)
flags.DEFINE_integer("warmup_runs", 10, "Runs before them, behind the first.", lower_bound=0)
flags.DEFINE_string(
    "taskset", "", "Hexadecimal mask of the cores to run on: 1 the first, f the first four."
)
flags.DEFINE_float("timeout_seconds", 600.0, "For loading and all runs.", lower_bound=0.1)
flags.DEFINE_string("output", None, "Where to write the result as JSON as well.")

flags.DEFINE_string(
    "benchmark_binary", "", "TFLite's benchmark_model, built for the device. An option on host."
)
# Of the binary.
flags.DEFINE_float("max_secs", 150.0, "No run is begun behind this.", lower_bound=0.1)
flags.DEFINE_bool("use_xnnpack", None, "The XNNPACK delegate; the binary decides if left out.")
flags.DEFINE_bool("use_gpu", False, "The GPU delegate.")
flags.DEFINE_bool("use_nnapi", False, "The NNAPI delegate.")
flags.DEFINE_bool("enable_op_profiling", False, "Time every operator as well.")
flags.DEFINE_integer("repeats", 3, "Executions of the binary, at least.", lower_bound=2)
flags.DEFINE_integer("max_repeats", 10, "Executions, at most.", lower_bound=2)
flags.DEFINE_float(
    "max_spread", 0.05, "(p90 - p10) / median of the executions up to which they agree."
)
# Of a phone.
flags.DEFINE_float("max_temperature_c", 40.0, "Cool down to this ahead of an execution.")
flags.DEFINE_float("cooldown_seconds", 60.0, "For cooling down, at most.", lower_bound=0.0)
flags.DEFINE_string("device_folder", "/data/local/tmp", "Where the phone executes programs.")

_NEED_BINARY = (
    "max_secs", "use_xnnpack", "use_gpu", "use_nnapi", "enable_op_profiling", "repeats",
    "max_repeats", "max_spread",
)  # fmt: skip
_NEED_PHONE = ("max_temperature_c", "cooldown_seconds", "device_folder")


def main() -> None:
    from mnasdet import files

    result = _measure()
    if FLAGS.output:
        files.write(FLAGS.output, json.dumps(result, indent=2) + "\n")
    if FLAGS.format == "json":
        command.print_json(result)
        return
    operators = result.pop("operators", [])
    for name, value in (result | result["provenance"]).items():
        if name != "provenance":
            print(f"{name} = {value:.3f}" if isinstance(value, float) else f"{name} = {value}")
    for row in operators:
        print(f"{row['mean_ms']:9.3f} ms {row['percent']:6.2f} %  {row['type']}  {row['name']}")


def _measure() -> dict[str, Any]:
    kind, _, serials = FLAGS.device.partition(":")
    if kind not in ("host", "adb") or FLAGS.device in ("adb:", f"host:{serials}"):
        raise ConfigError(f"--device={FLAGS.device}: host, adb or adb:SERIAL is needed")
    if kind == "host":
        _refuse(_NEED_PHONE, "--device=adb")
    if FLAGS.benchmark_binary:
        return _measure_by_binary(kind, serials.split(",") if serials else [])
    if kind == "adb":
        raise ConfigError(
            f"--device={FLAGS.device}: needs --benchmark_binary, TFLite's benchmark_model for the "
            "phone; tflite/README.md says where to get it"
        )
    _refuse(_NEED_BINARY, "--benchmark_binary")
    from mnasdet.tflite.benchmark import benchmark

    return benchmark(
        FLAGS.graph,
        num_threads=FLAGS.num_threads,
        num_runs=FLAGS.num_runs,
        warmup_runs=FLAGS.warmup_runs,
        taskset=FLAGS.taskset,
        timeout_seconds=FLAGS.timeout_seconds,
    )


def _measure_by_binary(kind: str, serials: list[str]) -> dict[str, Any]:
    from mnasdet.tflite import android, benchmark_model, native

    options = benchmark_model.Options(
        num_threads=FLAGS.num_threads,
        num_runs=FLAGS.num_runs,
        warmup_runs=FLAGS.warmup_runs,
        max_seconds=FLAGS.max_secs,
        use_xnnpack=FLAGS.use_xnnpack,
        use_gpu=FLAGS.use_gpu,
        use_nnapi=FLAGS.use_nnapi,
        enable_op_profiling=FLAGS.enable_op_profiling,
        taskset=FLAGS.taskset,
    )
    repeats = native.Repeats(FLAGS.repeats, FLAGS.max_repeats, FLAGS.max_spread)
    arguments = (FLAGS.graph, FLAGS.benchmark_binary, options, repeats)
    if kind == "host":
        return native.benchmark(*arguments, timeout_seconds=FLAGS.timeout_seconds)
    return android.benchmark(
        *arguments,
        serials=serials,
        cooling=android.Cooling(FLAGS.max_temperature_c, FLAGS.cooldown_seconds),
        device_folder=FLAGS.device_folder,
        timeout_seconds=FLAGS.timeout_seconds,
    )


def _refuse(names: tuple[str, ...], need: str) -> None:
    """Raises ConfigError for a flag that would have no effect."""
    for name in names:
        if FLAGS[name].present:
            raise ConfigError(f"--{name}: needs {need}")


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()

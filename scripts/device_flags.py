"""The flags of commands that measure: on which device, and how."""

from __future__ import annotations

from absl import flags

from mnasdet.errors import ConfigError

FLAGS = flags.FLAGS
# They are the command's own: its --help lists them.
flags.disclaim_key_flags()

_NEED_BINARY = (
    "max_secs",
    "use_xnnpack",
    "use_gpu",
    "use_nnapi",
    "enable_op_profiling",
)
_NEED_PHONE = ("max_temperature_c", "cooldown_seconds", "device_folder")


def define(num_runs: int, warmup_runs: int = 10) -> None:
    """Args:
    num_runs, warmup_runs: the defaults.
    """
    flags.DEFINE_string(
        "device",
        "host",
        "Where to measure: host is this machine; adb the only Android device that is connected, "
        "adb:SERIAL that one, adb:SERIAL,SERIAL the first of them that is free.",
    )
    flags.DEFINE_integer("num_threads", 1, "Of the runtime.", lower_bound=1)
    flags.DEFINE_string(
        "taskset", "", "Hexadecimal mask of the cores to run on: 1 the first, f the first four."
    )
    flags.DEFINE_integer("num_runs", num_runs, "Runs of an execution that count.", lower_bound=1)
    flags.DEFINE_integer(
        "warmup_runs", warmup_runs, "Runs before them, behind the first.", lower_bound=0
    )
    flags.DEFINE_integer("repeats", 3, "Executions, at least.", lower_bound=2)
    flags.DEFINE_integer("max_repeats", 10, "Executions, at most.", lower_bound=2)
    flags.DEFINE_float(
        "max_spread", 0.05, "(p90 - p10) / median of the executions up to which they agree."
    )
    flags.DEFINE_float("timeout_seconds", 600.0, "For one execution.", lower_bound=0.1)
    _define_of_binary()
    _define_of_phone()


def _define_of_binary() -> None:
    flags.DEFINE_string(
        "benchmark_binary",
        "",
        "TFLite's benchmark_model, built for the device. An option on host.",
    )
    flags.DEFINE_float("max_secs", 150.0, "No run is begun behind this.", lower_bound=0.1)
    flags.DEFINE_bool("use_xnnpack", None, "The XNNPACK delegate; the binary decides if left out.")
    flags.DEFINE_bool("use_gpu", False, "The GPU delegate.")
    flags.DEFINE_bool("use_nnapi", False, "The NNAPI delegate.")
    flags.DEFINE_bool("enable_op_profiling", False, "Time every operator as well.")


def _define_of_phone() -> None:
    flags.DEFINE_float("max_temperature_c", 40.0, "Cool down to this ahead of an execution.")
    flags.DEFINE_float("cooldown_seconds", 60.0, "For cooling down, at most.", lower_bound=0.0)
    flags.DEFINE_string("device_folder", "/data/local/tmp", "Where the phone executes programs.")


def device_spec():
    """The DeviceSpec that the flags describe; raises ConfigError where they do not fit."""
    from mnasdet.tflite import device
    from mnasdet.tflite.benchmark_model import Options
    from mnasdet.tflite.repeats import Repeats

    kind, serials = device.parse(FLAGS.device)
    if kind == "host":
        _refuse(_NEED_PHONE, "--device=adb")
        if not FLAGS.benchmark_binary:
            _refuse(_NEED_BINARY, "--benchmark_binary")
    return device.DeviceSpec(
        kind,
        serials,
        FLAGS.benchmark_binary,
        Options(
            num_threads=FLAGS.num_threads,
            num_runs=FLAGS.num_runs,
            warmup_runs=FLAGS.warmup_runs,
            max_seconds=FLAGS.max_secs,
            use_xnnpack=FLAGS.use_xnnpack,
            use_gpu=FLAGS.use_gpu,
            use_nnapi=FLAGS.use_nnapi,
            enable_op_profiling=FLAGS.enable_op_profiling,
            taskset=FLAGS.taskset,
        ),
        Repeats(FLAGS.repeats, FLAGS.max_repeats, FLAGS.max_spread),
        device.Cooling(FLAGS.max_temperature_c, FLAGS.cooldown_seconds),
        FLAGS.device_folder,
        FLAGS.timeout_seconds,
    )


def _refuse(names: tuple[str, ...], need: str) -> None:
    """Raises ConfigError for a flag that would have no effect."""
    for name in names:
        if FLAGS[name].present:
            raise ConfigError(f"--{name}: needs {need}")

"""The flags of commands that measure: on which device, and how."""

from __future__ import annotations

import dataclasses

from absl import flags

from mnasdet.errors import ConfigError

FLAGS = flags.FLAGS
# They are the command's own: its --help lists them.
flags.disclaim_key_flags()

# A flag of one device only, by what it needs.
_NEEDS = {
    "max_secs": "--benchmark_binary",
    "enable_op_profiling": "--benchmark_binary",
    "use_xnnpack": "--benchmark_binary",
    "use_gpu": "--benchmark_binary",
    "use_nnapi": "--benchmark_binary",
    "max_temperature_c": "--device=adb",
    "cooldown_seconds": "--device=adb",
    "device_folder": "--device=adb",
}


def define() -> None:
    flags.DEFINE_string(
        "device",
        "host",
        "Where to measure: host is this machine; adb the only Android device that is connected, "
        "adb:SERIAL that one, adb:SERIAL,SERIAL the first of them that is free.",
    )
    flags.DEFINE_integer("num_threads", 1, "Threads of the TFLite runtime.", lower_bound=1)
    flags.DEFINE_string(
        "taskset", "", "Hexadecimal mask of the cores to run on: 1 the first, f the first four."
    )
    flags.DEFINE_float(
        "timeout_seconds", 600.0, "The longest that one execution may take.", lower_bound=0.1
    )
    flags.DEFINE_string(
        "benchmark_binary",
        "",
        "TFLite's benchmark_model, built for the device. An option on host.",
    )
    flags.DEFINE_bool("use_xnnpack", None, "The XNNPACK delegate; the binary decides if left out.")
    flags.DEFINE_bool("use_gpu", False, "The GPU delegate.")
    flags.DEFINE_bool("use_nnapi", False, "The NNAPI delegate.")
    flags.DEFINE_float(
        "max_temperature_c", 40.0, "Let the phone cool down to this before an execution."
    )
    flags.DEFINE_float(
        "cooldown_seconds", 60.0, "The longest wait for a phone to cool down.", lower_bound=0.0
    )
    flags.DEFINE_string("device_folder", "/data/local/tmp", "Where the phone executes programs.")


def define_repeats() -> None:
    """Defines the flags of `repeats_spec`: how often one graph is timed."""
    flags.DEFINE_integer("num_runs", 50, "Runs of an execution that count.", lower_bound=1)
    flags.DEFINE_integer(
        "warmup_runs",
        10,
        "Runs that do not count, between the first and those that count.",
        lower_bound=0,
    )
    flags.DEFINE_integer("repeats", 3, "The fewest executions.", lower_bound=2)
    flags.DEFINE_integer("max_repeats", 10, "The most executions.", lower_bound=2)
    flags.DEFINE_float(
        "max_spread",
        0.05,
        "Executions agree up to this (p90 - p10) / median. Where they or the runs differ by more "
        "than twice as much, the result is noisy.",
    )
    flags.DEFINE_float(
        "max_secs", 150.0, "No run of an execution starts after so many seconds.", lower_bound=0.1
    )
    flags.DEFINE_bool("enable_op_profiling", False, "Time every operator as well.")


def device_spec():
    """Returns the DeviceSpec that the flags of `define` describe.

    Raises:
      ConfigError: a flag does not fit the device.
    """
    from mnasdet.tflite.devices import device
    from mnasdet.tflite.devices.benchmark_model import Options

    kind, serials = device.parse(FLAGS.device)
    for name, need in _NEEDS.items():
        useless = kind == "host" and (need == "--device=adb" or not FLAGS.benchmark_binary)
        # A flag without effect would let the user believe in it.
        if useless and name in FLAGS and FLAGS[name].present:
            raise ConfigError(f"--{name}: needs {need}")
    return device.DeviceSpec(
        kind,
        serials,
        FLAGS.benchmark_binary,
        Options(
            num_threads=FLAGS.num_threads,
            use_xnnpack=FLAGS.use_xnnpack,
            use_gpu=FLAGS.use_gpu,
            use_nnapi=FLAGS.use_nnapi,
            taskset=FLAGS.taskset,
        ),
        cooling=device.Cooling(FLAGS.max_temperature_c, FLAGS.cooldown_seconds),
        device_folder=FLAGS.device_folder,
        timeout_seconds=FLAGS.timeout_seconds,
    )


def repeats_spec():
    """Returns the DeviceSpec that the flags of `define` and `define_repeats` describe."""
    from mnasdet.tflite.devices.repeats import Repeats

    spec = device_spec()
    options = dataclasses.replace(
        spec.options,
        num_runs=FLAGS.num_runs,
        warmup_runs=FLAGS.warmup_runs,
        max_seconds=FLAGS.max_secs,
        enable_op_profiling=FLAGS.enable_op_profiling,
    )
    repeats = Repeats(FLAGS.repeats, FLAGS.max_repeats, FLAGS.max_spread)
    return dataclasses.replace(spec, options=options, repeats=repeats)

"""Cores, also where the system tells less of them, as macOS does."""

import os
import subprocess
import sys
from pathlib import Path

from mnasdet import cores

ROOT = Path(__file__).parents[1]

# Removes the functions that Python has on Linux and lacks on macOS.
_LIKE_MACOS = """
import os
for name in ("sched_getaffinity", "sched_setaffinity", "sched_getscheduler", "sched_setscheduler"):
    delattr(os, name)
"""


def like_macos(code):
    done = subprocess.run(
        [sys.executable, "-c", _LIKE_MACOS + code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_those_of_this_process():
    assert cores.available() == os.sched_getaffinity(0)
    assert cores.can_pin()


def test_all_where_the_system_does_not_tell():
    code = "from mnasdet import cores; print(len(cores.available()), cores.can_pin())"
    assert like_macos(code) == [str(os.cpu_count()), "False"]


def test_a_mac_names_its_processor(tmp_path):
    """By the only program that tells one of Apple's from another."""
    program = tmp_path / "sysctl"
    program.write_text('#!/bin/sh\n[ "$*" = "-n machdep.cpu.brand_string" ] && echo Apple M2 Pro\n')
    program.chmod(0o755)
    code = f"""
import sys
from pathlib import Path
from mnasdet.tflite.devices import provenance
sys.platform = "darwin"
os.environ["PATH"] = {str(tmp_path)!r}
exists = Path.exists
Path.exists = lambda path: not str(path).startswith("/proc") and exists(path)
print(provenance.cpu_model())
"""
    assert like_macos(code) == ["Apple", "M2", "Pro"]


def test_all_that_counts_cores_runs_without_affinity(tiny_graph_path):
    code = f"""
from mnasdet.errors import ConfigError
from mnasdet.search.executors.worker_processes import WorkerProcesses
from mnasdet.tflite.devices.benchmark_model import Options
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.devices.factory import opened
from mnasdet.training import runtime
import tensorflow as tf

runtime.use_threads()
print(tf.config.threading.get_inter_op_parallelism_threads())
print(WorkerProcesses(1)._settings.threads)
with opened(DeviceSpec()) as device:
    print(device.benchmark({str(tiny_graph_path)!r})["median_ms"] > 0)
try:
    opened(DeviceSpec(options=Options(taskset="1"))).__enter__()
except ConfigError as error:
    print(error)
"""
    count = os.cpu_count()
    words = like_macos(code)
    assert words[:3] == [str(min(count, 2)), str(count), "True"]
    assert " ".join(words[3:]) == ("--taskset: this operating system cannot pin a process to cores")

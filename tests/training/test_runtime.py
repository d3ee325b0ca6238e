"""Tests the line that says what TensorFlow computes on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

ROOT = Path(__file__).parents[2]
# As commands do, after their flags.
_LOG = """
from absl import flags
from mnasdet import terminal
flags.FLAGS.mark_as_parsed()
terminal.set_up()
from mnasdet.training import runtime
"""

pytestmark = pytest.mark.skipif(
    bool(tf.config.list_physical_devices("GPU")), reason="TensorFlow has a GPU here"
)


def logged(folder, nvidia_smi=None, code="runtime.log_devices()", **environment):
    """Returns the lines that are logged where nvidia-smi is this shell script, or missing."""
    if nvidia_smi is not None:
        path = folder / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{nvidia_smi}\n")
        path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", _LOG + code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PATH": str(folder), "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
    )
    return done.stderr.splitlines()


def test_the_cpu_with_its_threads(tmp_path):
    (line,) = logged(tmp_path)
    match = re.fullmatch(r"TensorFlow 2\.20\.\d on the CPU with (\d+) threads?", line)
    assert int(match[1]) == len(os.sched_getaffinity(0))


def test_a_gpu_that_tensorflow_cannot_use_is_a_warning(tmp_path):
    _, warning = logged(tmp_path, "echo Tesla T4")
    assert warning.startswith("warning: Tesla T4 is there, but TensorFlow cannot use it: pip ")
    assert "'tensorflow[and-cuda]==2.20." in warning


@pytest.mark.parametrize("nvidia_smi", ["echo 'No devices were found'; exit 6", "exit 9"])
def test_no_gpu_is_no_warning(tmp_path, nvidia_smi):
    assert len(logged(tmp_path, nvidia_smi)) == 1


def test_a_driver_without_its_program_is_a_gpu(tmp_path):
    code = f"runtime._OF_NVIDIA = (runtime.Path({str(tmp_path)!r}),); runtime.log_devices()"
    _, warning = logged(tmp_path, code=code)
    assert warning.startswith("warning: an NVIDIA GPU is there")


def test_a_gpu_that_the_user_hides_is_no_warning(tmp_path):
    assert len(logged(tmp_path, "echo Tesla T4", CUDA_VISIBLE_DEVICES="-1")) == 1

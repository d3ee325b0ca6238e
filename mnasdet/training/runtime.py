"""How TensorFlow runs: threads, seeds, determinism."""

from __future__ import annotations

import os
from pathlib import Path

import tensorflow as tf
import tf_keras
from absl import logging

from mnasdet import cores, gpus

# Exist where NVIDIA's driver runs; not under Windows, where only nvidia-smi tells of the GPU.
_OF_NVIDIA = (Path("/dev/nvidia0"), Path("/proc/driver/nvidia"))


def use_threads(threads: int = 0) -> None:
    """Gives TensorFlow a number of threads; 0: one a core. To be called before it does anything.

    A training step has about two operations to run at any time, the gradients for a layer's input
    and for its kernel, so the threads are split between two operations. On two cores that is a
    sixth faster than TensorFlow's default, where both operations compete for both.
    """
    threads = threads or len(cores.available())
    tf.config.threading.set_inter_op_parallelism_threads(min(threads, 2))
    tf.config.threading.set_intra_op_parallelism_threads(max(threads // 2, 1))


def expect_networks() -> None:
    """Silences the warning of functions that are traced again and again.

    A process that meets network after network has to; TensorFlow takes it for a mistake.
    """
    tf.get_logger().setLevel("ERROR")


def log_devices() -> None:
    """Logs in one line what TensorFlow computes on, and warns of a GPU that it cannot use."""
    if used := tf.config.list_physical_devices("GPU"):
        names = [
            str(tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name))
            for gpu in used
        ]
        logging.info("TensorFlow %s on %s", tf.__version__, ", ".join(names))
        return
    threads = len(cores.available())
    logging.info(
        "TensorFlow %s on the CPU with %d thread%s", tf.__version__, threads, "s" * (threads != 1)
    )
    if name := _unused_gpu():
        # The reason is in the log of TensorFlow's C++ side, which the commands turn off.
        logging.warning(
            "%s is there, but TensorFlow cannot use it: pip install 'tensorflow[and-cuda]==%s', "
            "or set TF_CPP_MIN_LOG_LEVEL=0 to see why",
            name,
            tf.__version__,
        )


def _unused_gpu() -> str:
    """Returns the name of an NVIDIA GPU that this machine has, "" if it has none.

    Of interest only where TensorFlow lists no GPU. One that CUDA_VISIBLE_DEVICES hides does not
    count.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return ""
    if names := gpus.listed():
        return names[0]
    return "an NVIDIA GPU" if any(path.exists() for path in _OF_NVIDIA) else ""


def seed_everything(seed: int) -> None:
    """Seeds all random numbers; on a CPU, makes TensorFlow repeatable and quick to start.

    Not on accelerators: there, depthwise gradients have no deterministic kernel, and the graph
    optimiser is worth its time.
    """
    tf_keras.utils.set_random_seed(seed)
    if not tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()
        # Saves seconds before the first step and costs nothing after it.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

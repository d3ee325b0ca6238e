"""How TensorFlow runs: threads, seeds, determinism."""

from __future__ import annotations

import os

import tensorflow as tf
import tf_keras


def use_threads(threads: int = 0) -> None:
    """Gives TensorFlow so many threads; 0: one a core. To be called before it does anything.

    A training step has about two operations to run at any time, the gradients for a layer's input
    and for its kernel, so the threads are split between two operations. On two cores that is a
    sixth faster than TensorFlow's default, where both operations compete for both.
    """
    threads = threads or len(os.sched_getaffinity(0))
    tf.config.threading.set_inter_op_parallelism_threads(min(threads, 2))
    tf.config.threading.set_intra_op_parallelism_threads(max(threads // 2, 1))


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

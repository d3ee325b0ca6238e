"""The process that times `Task.predict`: a JSON job a line in, a JSON result a line out.

It stays, as TensorFlow takes seconds to start, and its number of threads cannot be changed after
that.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from mnasdet.blueprint import Blueprint
from mnasdet.errors import UserError, foreign_line
from mnasdet.tflite.devices.benchmark_worker import forget_peak_memory, peak_memory_mb


class Predictors:
    """The compiled `predict` of one blueprint after the other; the last one is kept."""

    def __init__(self) -> None:
        self._blueprint = ""
        self._model = contextlib.ExitStack()
        self._predict: Callable[[], None] = lambda: None

    def run(
        self,
        blueprint: str,
        num_threads: int,
        num_runs: int,
        warmup_runs: int,
        max_seconds: float,
    ) -> dict[str, Any]:
        """Times the detection in one random picture, with fresh weights.

        Args:
          blueprint: pickled, in base 64.
          num_threads: of the process; those of the first job count.
          warmup_runs: after the first run, not counted.
          max_seconds: no further run is begun after this.

        Returns:
          As `benchmark_worker.run`; init_ms is what building and compiling took.
        """
        import tensorflow as tf

        try:
            if blueprint != self._blueprint:
                self._build(blueprint, num_threads)
            warmup_runs_ms = [self._run_ms() for _ in range(warmup_runs)]
            runs_ms: list[float] = []
            start = time.perf_counter()
            while len(runs_ms) < num_runs:
                runs_ms.append(self._run_ms())
                if time.perf_counter() - start > max_seconds:
                    break
        except (UserError, MemoryError) as error:
            return {"error": str(error) or "out of memory"}
        except tf.errors.OpError as error:
            return {"error": foreign_line(error)}
        return {
            "init_ms": self._init_ms,
            "first_ms": self._first_ms,
            "warmup_runs_ms": warmup_runs_ms,
            "runs_ms": runs_ms,
            "process_memory_mb": self._process_memory_mb,
            "loaded_mb": self._loaded_mb,
            "peak_mb": peak_memory_mb(),
        }

    def _build(self, encoded: str, num_threads: int) -> None:
        """Builds and compiles the model of a blueprint, and runs it once."""
        import tensorflow as tf

        from mnasdet import models
        from mnasdet.networks.memory import memory_freed

        self._blueprint, self._predict = "", lambda: None
        self._model.close()
        _use_threads(num_threads)
        forget_peak_memory()
        self._process_memory_mb = peak_memory_mb()
        start = time.perf_counter()
        self._model.enter_context(memory_freed())
        blueprint: Blueprint = pickle.loads(base64.b64decode(encoded))
        # The weights decide how many boxes a suppression compares.
        tf.random.set_seed(0)
        task = models.build(blueprint)
        shape = (1, *blueprint.image_size, 3)
        compiled = tf.function(task.predict, autograph=False).get_concrete_function(
            tf.TensorSpec(shape)
        )
        rng = np.random.default_rng(0)
        image = tf.constant(rng.uniform(-1, 1, shape).astype(np.float32))

        def predict() -> None:
            # Read, as an accelerator returns before it is done.
            for output in compiled(image).values():
                output.numpy()

        self._predict = predict
        self._init_ms = 1e3 * (time.perf_counter() - start)
        self._loaded_mb = peak_memory_mb()
        self._first_ms = self._run_ms()
        self._blueprint = encoded

    def _run_ms(self) -> float:
        start = time.perf_counter()
        self._predict()
        return 1e3 * (time.perf_counter() - start)


def encoded(blueprint: Blueprint) -> str:
    """Returns the blueprint as a job has it."""
    return base64.b64encode(pickle.dumps(blueprint)).decode()


def _use_threads(threads: int) -> None:
    import tensorflow as tf

    # RuntimeError: TensorFlow has started, for the first job.
    with contextlib.suppress(RuntimeError):
        # One operation after the other, each on all threads: what a single picture gains most from.
        tf.config.threading.set_inter_op_parallelism_threads(1)
        tf.config.threading.set_intra_op_parallelism_threads(threads)


def main() -> None:
    # Results alone go to standard output: what a library prints there must not mix with them.
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    predictors = Predictors()
    for job in sys.stdin:
        print(json.dumps(predictors.run(**json.loads(job))), file=results, flush=True)


if __name__ == "__main__":
    main()

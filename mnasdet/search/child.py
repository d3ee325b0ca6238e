"""Trains one sampled architecture on the proxy task."""

from __future__ import annotations

import errno
import gc
import math
import os
from dataclasses import dataclass, field

from google.protobuf import text_format

from mnasdet.errors import ConfigError, UserError, foreign_line
from mnasdet.networks.memory import memory_freed
from mnasdet.protos import architecture_pb2, pipeline_pb2

# TensorFlow has one error for full memory and for these.
_NOT_MEMORY = [
    os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
]


@dataclass(frozen=True)
class ChildTask:
    """What a worker needs to know: it pickles to two strings and two numbers.

    Attributes:
      max_file_size: bytes that the float32 TFLite file may have; 0: no limit.
      folder: takes checkpoints, and the newest one there is where training goes on; none are kept
        without one.
    """

    pipeline: bytes
    architecture: str
    seed: int
    max_file_size: int = 0
    folder: str = ""


@dataclass(frozen=True)
class Outcome:
    """COCO metrics of the trained child, or why there are none.

    A metric that is no finite number is a reason: the child has failed.

    Attributes:
      error: one line; None for a trained child.
      rejected: the child is over a limit, as `error` says, and was not trained.
      environmental: the failure says nothing about the architecture. Data is out of reach, a disk
        is full, the worker was lost or could not start, or a library failed.
      seconds: from the moment a worker took the child to its end.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    worker: str = ""
    rejected: bool = False
    environmental: bool = False
    seconds: float = 0.0

    def __post_init__(self):
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                object.__setattr__(self, "error", f"{name} is {value}")
                object.__setattr__(self, "metrics", {})
                return


def prepare(threads: int) -> None:
    """Loads TensorFlow, with so many threads, ahead of a process's first child."""
    import tensorflow as tf

    from mnasdet.training import runtime, trainer  # noqa: F401

    runtime.use_threads(threads)
    # Every child traces functions of its own, which it takes for a mistake.
    tf.get_logger().setLevel("ERROR")
    # What is loaded stays: a third of a million objects that no garbage collection need visit.
    gc.collect()
    gc.freeze()


class Rejected(UserError):
    """The network is over a limit."""


def run(task: ChildTask) -> dict[str, float]:
    """COCO metrics of the architecture after training and evaluation as the pipeline says.

    Raises:
      Rejected: its file is too large.
    """
    from mnasdet.training import trainer

    pipeline = pipeline_pb2.TrainEvalPipelineConfig.FromString(task.pipeline)
    architecture = text_format.Parse(task.architecture, architecture_pb2.Architecture())
    if task.max_file_size:
        _check_file_size(pipeline, architecture, task.max_file_size)
    folder = task.folder or None
    return trainer.train(pipeline, folder, architecture=architecture, seed=task.seed)


def _check_file_size(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    architecture: architecture_pb2.Architecture,
    max_file_size: int,
) -> None:
    from mnasdet.detectors import detector
    from mnasdet.tflite.convert import convert

    size = len(convert(detector.build(pipeline, architecture).model))
    if size > max_file_size:
        raise Rejected(
            f"the TFLite file has {size:,} bytes; limits.max_file_size is {max_file_size:,}"
        )


def run_safely(task: ChildTask) -> Outcome:
    """Runs a child and turns what can go wrong into an outcome.

    A bug of ours stops the search: it would spoil every other child as well.
    """
    with memory_freed():
        return _outcome(task)


def _outcome(task: ChildTask) -> Outcome:
    import tensorflow as tf

    from mnasdet.training.trainer import DivergedError

    try:
        return Outcome(metrics=run(task))
    except Rejected as error:
        return Outcome(error=str(error), rejected=True)
    except (DivergedError, ConfigError) as error:
        # The config was checked before the search: the rest of it is the architecture.
        return Outcome(error=str(error))
    except MemoryError as error:
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        return Outcome(error=f"out of memory: {first_line}")
    except tf.errors.OpError as error:
        told = foreign_line(error)
        is_memory = not any(reason in told for reason in _NOT_MEMORY)
        if isinstance(error, tf.errors.ResourceExhaustedError) and is_memory:
            return Outcome(error=f"out of memory: {told}")
        return Outcome(error=told, environmental=True)
    except (UserError, OSError) as error:
        return Outcome(error=str(error), environmental=True)

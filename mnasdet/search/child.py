"""Trains one sampled architecture on the proxy task."""

from __future__ import annotations

import contextlib
import errno
import math
import os
from dataclasses import dataclass, field

from mnasdet import config, models
from mnasdet.architectures import from_trial
from mnasdet.blueprint import Blueprint
from mnasdet.errors import ConfigError, UserError, foreign_line
from mnasdet.evaluation.objectives import objective
from mnasdet.networks.memory import keep_loaded, memory_freed
from mnasdet.protos import pipeline_pb2

# TensorFlow has one error for full memory and for these.
_NOT_MEMORY = [
    os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)
]


# XLA takes minutes to compile a detector's step (87 to 203 s were measured on two cores), which a
# faster step earns back in a long training alone.
_STEPS_WORTH_COMPILING = 10_000


@dataclass(frozen=True)
class ChildTask:
    """The task of a worker: it pickles to two strings and two numbers.

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
    """The metrics of the trained child, or why there are none.

    Attributes:
      objective: the name of the metric that counts.
      error: one line; None for a trained child.
      rejected: the child is over a limit, as `error` says, and was not trained.
      environmental: the failure says nothing about the architecture. Data is out of reach, a disk
        is full, the worker was lost or could not start, or a library failed.
      seconds: from the moment a worker took the child to its end.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    objective: str = ""
    error: str | None = None
    worker: str = ""
    rejected: bool = False
    environmental: bool = False
    seconds: float = 0.0

    @property
    def accuracy(self) -> float:
        """Returns the metric that counts, 0 or more: pycocotools says -1 for no boxes."""
        return max(self.metrics[self.objective], 0.0)


def trained(metrics: dict[str, float], objective: str) -> Outcome:
    """Returns the outcome of a child that was trained.

    A metric that is no finite number makes it one that has failed.
    """
    for name, value in metrics.items():
        if not math.isfinite(value):
            return Outcome(error=f"{name} is {value}")
    return Outcome(metrics, objective)


def prepare(threads: int) -> None:
    """Loads TensorFlow, with a number of threads, ahead of a process's first child."""
    from mnasdet.training import runtime, trainer  # noqa: F401

    runtime.use_threads(threads)
    runtime.expect_networks()
    keep_loaded()


class Rejected(UserError):
    """The network is over a limit."""


def run(task: ChildTask) -> Outcome:
    """Trains and evaluates the architecture as the pipeline says.

    Raises:
      Rejected: its file is too large.
    """
    from mnasdet.training import trainer

    pipeline = pipeline_pb2.TrainEvalPipelineConfig.FromString(task.pipeline)
    training = pipeline.train_config
    if training.jit_compile == training.AUTO and training.num_steps < _STEPS_WORTH_COMPILING:
        training.jit_compile = training.OFF
    blueprint = config.resolve(pipeline, from_trial(task.architecture))
    if task.max_file_size:
        _check_file_size(blueprint, task.max_file_size)
    if pipeline.search_config.HasField("one_shot"):
        from mnasdet.search import one_shot

        found = one_shot.metrics(pipeline, blueprint.architecture)
        return trained(found, objective(blueprint.kind))
    folder = task.folder or None
    metrics = trainer.train(pipeline, folder, blueprint=blueprint, seed=task.seed)
    return trained(metrics, objective(blueprint.kind))


def _check_file_size(blueprint: Blueprint, max_file_size: int) -> None:
    from mnasdet.networks.keras_builder import keras_model
    from mnasdet.tflite.convert import convert

    (graph,) = models.network(blueprint)
    size = len(convert(keras_model(dict(graph.outputs))))
    if size > max_file_size:
        raise Rejected(
            f"the TFLite file has {size:,} bytes; limits.max_file_size is {max_file_size:,}"
        )


def run_safely(task: ChildTask) -> Outcome:
    """Runs a child and turns what can go wrong into an outcome.

    A bug of ours stops the search: it would spoil every other child as well.
    """
    pipeline = pipeline_pb2.TrainEvalPipelineConfig.FromString(task.pipeline)
    # The supernet stays for the next child. Freed, TensorFlow would optimise its graphs anew, which
    # takes five of six seconds of a child.
    shares = pipeline.search_config.HasField("one_shot")
    with contextlib.nullcontext() if shares else memory_freed():
        return _outcome(task)


def _outcome(task: ChildTask) -> Outcome:
    import tensorflow as tf

    from mnasdet.training.trainer import DivergedError

    try:
        return run(task)
    except Rejected as error:
        return Outcome(error=str(error), rejected=True)
    except (DivergedError, ConfigError) as error:
        # The config was checked before the search: the rest of it is the architecture.
        return Outcome(error=str(error))
    except MemoryError as error:
        # The first line: TensorFlow's errors go on with the nodes of the graph.
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

"""Trains one sampled architecture on the proxy task."""

from __future__ import annotations

from dataclasses import dataclass, field

from google.protobuf import text_format

from mnasdet.errors import UserError
from mnasdet.protos import architecture_pb2, pipeline_pb2


@dataclass(frozen=True)
class ChildTask:
    """What a worker needs to know: it pickles to two byte strings and a number."""

    pipeline: bytes
    architecture: str
    seed: int


@dataclass(frozen=True)
class Outcome:
    """COCO metrics of the trained child, or why there are none."""

    metrics: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    worker: str = ""


def run(task: ChildTask) -> dict[str, float]:
    """COCO metrics of the architecture after training and evaluation as the pipeline says."""
    import tf_keras

    from mnasdet.training import trainer

    pipeline = pipeline_pb2.TrainEvalPipelineConfig.FromString(task.pipeline)
    architecture = text_format.Parse(task.architecture, architecture_pb2.Architecture())
    try:
        return trainer.train(pipeline, architecture=architecture, seed=task.seed)
    finally:
        tf_keras.backend.clear_session()


def run_safely(task: ChildTask) -> Outcome:
    """`run`, with what can go wrong with one architecture turned into an outcome.

    A bug of ours stops the search: it would spoil every other child as well.
    """
    import tensorflow as tf

    try:
        return Outcome(metrics=run(task))
    except UserError as error:
        return Outcome(error=str(error))
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        return Outcome(error=f"out of memory: {str(error).splitlines()[0]}")

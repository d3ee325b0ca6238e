"""The replicas of a training: which devices take part, their data, and sums over all of them.

Nothing else in the library knows how many replicas there are.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
from absl import logging

from mnasdet.errors import ConfigError, UserError, foreign_line
from mnasdet.protos import train_pb2

_FIELD = "train_config.distribution"

# The message of an unusable TF_CONFIG ends with it.
_EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}} is one of two'
)

# The types of tasks that train; of a chief there is one, and it comes first.
_TRAINING_TASKS = ("chief", "worker")


# TensorFlow's errors about another process. An own fault, as full memory, is none of them.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)


class WorkerLostError(UserError):
    """Another worker of a training ended or is out of reach."""


def strategy(train_config: train_pb2.TrainConfig) -> tf.distribute.Strategy:
    """Returns the strategy of the devices that a config names.

    To be called before TensorFlow computes anything: workers cannot be joined after that.

    Raises:
      ConfigError: there are no such devices, or they cannot share out the batch.
      UserError: other machines are out of reach.
    """
    found = _strategy(train_config.distribution)
    replicas = found.num_replicas_in_sync
    parts = train_config.parallel_parts * train_config.gradient_accumulation_steps
    if train_config.batch_size % (replicas * parts):
        each = f" of {parts} parts each" if parts > 1 else ""
        raise ConfigError(
            f"train_config.batch_size is {train_config.batch_size}; a multiple of "
            f"{replicas * parts} is needed for {replicas} replicas{each}"
        )
    if replicas > 1:
        logging.info("%d replicas, %d images each", replicas, train_config.batch_size // replicas)
    return found


def _strategy(config: train_pb2.Distribution) -> tf.distribute.Strategy:
    gpus = tf.config.list_physical_devices("GPU")
    match config.WhichOneof("distribution_oneof"):
        case "mirrored":
            num_gpus = config.mirrored.num_gpus
            if len(gpus) < max(num_gpus, 1):
                raise ConfigError(
                    f"{_FIELD}.mirrored has num_gpus {num_gpus or 'of all'}; TensorFlow finds "
                    f"{len(gpus)} on this machine"
                )
            return tf.distribute.MirroredStrategy(_names(num_gpus or len(gpus)))
        case "multi_worker":
            return _multi_worker()
        case "tpu":
            return _tpu(config.tpu.name)
        case "one_device":
            gpus = gpus[:1]
    # With one device the default strategy does the same without the collectives.
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _names(num_gpus: int) -> list[str]:
    return [f"GPU:{number}" for number in range(num_gpus)]


def _multi_worker() -> tf.distribute.Strategy:
    place, workers = _place()
    logging.info("worker %d of %d waits for the others", place + 1, workers)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{_FIELD}.multi_worker: the workers of TF_CONFIG cannot be joined: "
            f"{foreign_line(error)}"
        ) from None


def _tpu(name: str) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(name or "local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, RuntimeError, ValueError, ImportError, OSError) as error:
        raise UserError(
            f'{_FIELD}.tpu: TensorFlow cannot use TPU "{name or "local"}": {foreign_line(error)}'
        ) from None


def _place() -> tuple[int, int]:
    """Returns which worker this process is, from 0, and how many there are, by TF_CONFIG.

    Raises:
      ConfigError: TF_CONFIG is missing or cannot be used.
    """
    text = os.environ.get("TF_CONFIG", "")
    if not text:
        raise ConfigError(f"{_FIELD}.multi_worker needs TF_CONFIG in the environment: {_EXAMPLE}")
    try:
        settings = json.loads(text)
        cluster, task = settings["cluster"], settings["task"]
        kind, index = task["type"], int(task["index"])
        sizes = {name: len(cluster.get(name, ())) for name in _TRAINING_TASKS}
        if kind not in sizes or not 0 <= index < sizes[kind]:
            raise ValueError(f"there is no {kind} {index} in the cluster")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ConfigError(f"TF_CONFIG cannot be used: {reason}; {_EXAMPLE}") from None
    return index + (sizes["chief"] if kind == "worker" else 0), sum(sizes.values())


@contextlib.contextmanager
def written(model_dir: Path, config: train_pb2.Distribution) -> Iterator[Path]:
    """Gives the folder that this process writes a training's files into.

    That is `model_dir` for the first worker. The others have to take part in everything, because
    the values of a batch normalisation are gathered from all, but what they write is removed.
    """
    if is_first(config):
        yield model_dir
        return
    with tempfile.TemporaryDirectory(prefix="mnasdet-worker-") as folder:
        yield Path(folder)


def is_first(config: train_pb2.Distribution) -> bool:
    """Returns whether this process is the one of several workers that writes."""
    return not config.HasField("multi_worker") or _place()[0] == 0


class Workers:
    """The processes that train together; usually one. Make it inside the strategy's scope."""

    def __init__(self, config: train_pb2.Distribution):
        self._strategy = tf.distribute.get_strategy()
        self._place, self._count = _place() if config.HasField("multi_worker") else (0, 1)

    def any(self, *flags: bool) -> list[bool]:
        """Returns for each flag whether any worker has set it; all have to ask at the same time."""
        return [total > 0 for total in self._totals([int(flag) for flag in flags])]

    def of_first(self, value: float) -> float:
        """Returns the number of the first worker; all have to ask at the same time.

        What decides whether a training ends or saves has to be the same number everywhere.
        """
        if self._count == 1:
            return value
        replicas = self._strategy.num_replicas_in_sync // self._count
        own = value if self._place == 0 else 0.0
        return float(self._sum(tf.constant([own])).numpy()[0]) / replicas

    def check_same(self, number: int, meaning: str) -> None:
        """Raises UserError unless all workers have the same number."""
        replicas = self._strategy.num_replicas_in_sync if self._count > 1 else 1
        total, squares = self._totals([number, number**2])
        # The variance of the number is 0.
        if total**2 != replicas * squares:
            raise UserError(
                f"{_FIELD}.multi_worker: the {meaning} of this worker is {number}, and another one "
                "of others; all have to see the same --model_dir"
            )

    def _totals(self, numbers: Sequence[int]) -> list[int]:
        """Returns the sums over all replicas of all workers; of one worker the numbers."""
        if self._count == 1:
            return list(numbers)
        return self._sum(tf.constant(numbers, tf.int64)).numpy().tolist()

    @tf.function(autograph=False)
    def _sum(self, numbers: tf.Tensor) -> tf.Tensor:
        own = self._strategy.run(tf.identity, args=(numbers,))
        return self._strategy.reduce("SUM", own, axis=None)

    def batches(self, make: Callable[[int, int], tf.data.Dataset]) -> Any:
        """Returns the batches of all replicas.

        Args:
          make: returns the share of one worker in every batch; given its number and how many there
            are.
        """
        if self._count == 1:
            return self._strategy.experimental_distribute_dataset(make(0, 1))
        replicas = self._strategy.num_replicas_in_sync // self._count

        def share(context: tf.distribute.InputContext) -> tf.data.Dataset:
            dataset = make(self._place, self._count)
            # One batch after the other for the replicas of this worker.
            return dataset.map(
                lambda batch: tf.nest.map_structure(
                    lambda value: tf.reshape(value, [replicas, -1, *value.shape[1:]]), batch
                )
            ).unbatch()

        return self._strategy.distribute_datasets_from_function(share)


@contextlib.contextmanager
def naming_lost(config: train_pb2.Distribution, model_dir: str | Path | None) -> Iterator[None]:
    """Turns TensorFlow's error about another worker that ended into one line.

    Raises:
      WorkerLostError: in place of that error.
    """
    try:
        yield
    except _LOST as error:
        if not config.HasField("multi_worker"):
            raise
        saved = f"; they go on from the newest checkpoint of {model_dir}" if model_dir else ""
        raise WorkerLostError(
            f"{_FIELD}.multi_worker: another worker was lost ({foreign_line(error)}); start all "
            f"workers again{saved}"
        ) from None


def summed(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns the sums of each tensor over all replicas; called by each replica."""
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors))


def call_if(
    condition: tf.Tensor, function: Callable[[list[tf.Tensor]], None], tensors: list[tf.Tensor]
) -> None:
    """Calls a function that changes variables where a condition holds; called by each replica.

    Args:
      condition: the same for all replicas.
      tensors: the function's argument.
    """

    def called(strategy: tf.distribute.Strategy, condition: Any, tensors: list[Any]) -> None:
        def call() -> tf.Operation:
            strategy.extended.call_for_each_replica(function, args=(tensors,))
            return tf.no_op()

        tf.cond(strategy.experimental_local_results(condition)[0], call, tf.no_op)

    # Replicas update a variable together, which none of them may do in a branch of its own. So
    # there is one branch around all of them.
    tf.distribute.get_replica_context().merge_call(called, args=(condition, tensors))

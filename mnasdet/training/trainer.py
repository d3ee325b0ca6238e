"""Trains and evaluates a detector in one process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf
from absl import logging

from mnasdet import config, files, models, remote
from mnasdet.blueprint import Blueprint
from mnasdet.data import input_pipeline
from mnasdet.errors import UserError, shown
from mnasdet.evaluation import metric_text
from mnasdet.evaluation.evaluate import evaluation_set, judged
from mnasdet.protos import pipeline_pb2
from mnasdet.tasks import Task
from mnasdet.training import (
    checkpoint_writer,
    checkpoints,
    distribution,
    early_stopping,
    precision,
    run_files,
    runtime,
    training_data,
)
from mnasdet.training.interruption import StoppedError, StopRequest, stop_request
from mnasdet.training.learner import Learner
from mnasdet.training.summaries import Summaries
from mnasdet.training.warm_start import load

# The folder of the best checkpoint.
BEST = "best"

_METRICS_FILE = "metrics.json"
_LOG_EVERY = 50

# Images of a bad step that its message names; the rest is only counted.
_MAX_NAMED = 5

# Where the config names no number of steps: a killed training loses no more than this, and to save
# takes a second of it.
_SECONDS_BETWEEN_CHECKPOINTS = 300.0


class DivergedError(UserError):
    """The loss or a weight is NaN or infinite."""


def train(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    model_dir: str | Path | None = None,
    *,
    blueprint: Blueprint | None = None,
    seed: int = 0,
    method: Method | None = None,
) -> dict[str, float]:
    """Trains for `train_config.num_steps`, from the newest sound checkpoint of `model_dir` on.

    With `early_stopping` it may end earlier; going on, it has ended, too.

    Args:
      model_dir: gets checkpoints, the best one in best/, TensorBoard events, metrics.json, and
        pipeline.config, label map and architecture as they were used; None writes nothing.
      blueprint: in place of what the config builds.
      seed: of the weights, the order of the images and their augmentation.
      method: what learns from which batches; one learner from all images if left out.

    Returns:
      The metrics of the last evaluation, with step and train_seconds (without evaluation).

    Raises:
      DivergedError: the loss or a weight became NaN or infinite.
      StoppedError: SIGTERM or Ctrl-C ended a training that has a folder; it is saved.
      CheckpointError: `model_dir` holds checkpoints of another training.
      UserError: another process trains into `model_dir`.
    """
    blueprint = blueprint or config.resolve(pipeline)
    if not model_dir:
        return _train(blueprint, pipeline, None, seed, method or _plainly)
    devices = pipeline.train_config.distribution
    with (
        distribution.naming_lost(devices, model_dir),
        remote.mirrored(model_dir) as mirror,
        distribution.written(mirror.folder, devices) as written,
        files.locked(written),
    ):
        place = _Place(str(model_dir), mirror.folder, written, mirror)
        return _train(blueprint, pipeline, place, seed, method or _plainly)


class Learning(NamedTuple):
    """The learners of a training, and their data.

    Attributes:
      learner: a `Learner`, or what has its attributes and methods.
      batches: from the number of updates that were made, the batches of those that follow.
    """

    learner: Learner
    batches: Callable[[int], Iterator[Any]]


# Makes what learns of a task, a config and a seed. The task has the weights that it starts from.
Method: TypeAlias = Callable[[Task, pipeline_pb2.TrainEvalPipelineConfig, int], Learning]


def _plainly(task: Task, pipeline: pipeline_pb2.TrainEvalPipelineConfig, seed: int) -> Learning:
    learner = Learner(
        task,
        pipeline.train_config,
        keep_averages=pipeline.eval_config.use_moving_averages,
        quantization_delay=quantization_delay(pipeline),
    )

    def batches(start: int) -> Iterator[Any]:
        return iter(training_data.training_set(task, pipeline, seed, start))

    return Learning(learner, batches)


class _Place(NamedTuple):
    """The folders of a training.

    Attributes:
      name: what the user calls it.
      source: what the training goes on from.
      written: what it writes into: the same, but for workers beside the first.
      mirror: of the source.
    """

    name: str
    source: Path
    written: Path
    mirror: remote.Mirror

    def send(self) -> None:
        """Copies what was written to where the user wants it."""
        if self.written == self.source:
            self.mirror.send()


def _train(
    blueprint: Blueprint,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    place: _Place | None,
    seed: int,
    method: Method,
) -> dict[str, float]:
    runtime.seed_everything(seed)
    train_config = pipeline.train_config
    labels = input_pipeline.label_map(pipeline.eval_input_reader[0])
    if place and checkpoints.all_in(place.source):
        # Weights of another network would load without an error where names and shapes agree.
        # Before a network is built: that takes seconds, and this one may not be wanted.
        run_files.check_same(place.source, blueprint, pipeline, labels)
    with distribution.strategy(train_config).scope():
        workers = distribution.Workers(train_config.distribution)
        with precision.building(train_config):
            task = models.build(blueprint)
        if not (place and checkpoints.all_in(place.source)):
            load.from_config(task.model, train_config)
        learner, batches_from = method(task, pipeline, seed)
        run = _Run(pipeline, task, learner, labels, place, workers, seed)
        if place:
            run.resume(place.source)
            for folder in (place.written, place.written / BEST):
                run_files.write(folder, blueprint, pipeline, labels)
        start = learner.step
        workers.check_same(start, "step")
        # A run that goes on sees the images that the run which it continues would have seen.
        batches = batches_from(start)
    readers = [pipeline.train_input_reader, *pipeline.eval_input_reader]
    # Without a folder nothing could be saved, so a signal ends the training at once.
    stopping = stop_request() if place else contextlib.nullcontext(StopRequest())
    with input_pipeline.naming_damaged_images(*readers), stopping as request:
        run.catch_up()
        for step in range(start + 1, train_config.num_steps + 1):
            if run.is_over:
                break
            values = learner.update(next(batches))
            learner.average(step)
            run.after_step(step, values, request)
        return run.finish()


def quantization_delay(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> int:
    """Returns the steps before training rounds to int8; 0 where it never does, or always."""
    if not pipeline.HasField("graph_rewriter"):
        return 0
    return pipeline.graph_rewriter.quantization.delay


class _Run:
    """The work around the steps of a training: logs, evaluation, checkpoints."""

    def __init__(
        self,
        pipeline: pipeline_pb2.TrainEvalPipelineConfig,
        task: Task,
        learner: Learner,
        labels: dict[int, str],
        place: _Place | None,
        workers: distribution.Workers,
        seed: int,
    ):
        self._pipeline = pipeline
        self._config = pipeline.train_config
        self._learner = learner
        self._labels = labels
        self._place = place
        self._model_dir = place.written if place else None
        self._workers = workers
        self._task, self._update_task = precision.evaluated(
            task, self._config, lambda: models.build(task.blueprint)
        )
        self._evaluation_set = evaluation_set(pipeline, task.blueprint.resizer)
        self._predict = tf.function(self._task.predict, autograph=False)
        self._summaries = Summaries(self._model_dir)
        self._metrics: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._seed = seed
        self._train_seconds = 0.0
        # float32 has tenths of a second for twelve days, and TPUs have no float64.
        self._saved_seconds = tf.Variable(0.0, trainable=False)
        setattr(learner.checkpoint, checkpoints.SECONDS, self._saved_seconds)
        self._restart_clock(0)
        self._saved_at = time.monotonic()
        self._early_stopping = early_stopping.from_config(self._config)

    @property
    def is_over(self) -> bool:
        """Returns whether the training ends before its last step."""
        return self._early_stopping is not None and self._early_stopping.is_over

    def resume(self, model_dir: Path) -> None:
        """Goes on from the newest sound checkpoint of the folder, if it has any."""
        if not checkpoints.all_in(model_dir):
            self._save_early_stopping()
            return
        prefix = checkpoints.restore(self._learner.checkpoint, self._learner.model, model_dir)
        logging.info("going on from %s", prefix)
        # A resumed run must beat the best of the run it continues.
        self._metrics, self._best = _read_metrics(model_dir / _METRICS_FILE)
        self._train_seconds = float(self._saved_seconds.numpy())
        self._restart_clock(self._learner.step)
        self._save_early_stopping(prefix)

    def _save_early_stopping(self, prefix: str = "") -> None:
        """Makes what early_stopping has seen a part of checkpoints; it goes on from `prefix`."""
        if self._early_stopping:
            self._early_stopping.attach(self._learner.checkpoint, prefix)

    def catch_up(self) -> None:
        """Evaluates the checkpoint that a run goes on from, if it was killed before it had done so.

        Without that the best checkpoint could be another one than that of an uninterrupted run.
        """
        step = self._learner.step
        is_due = 0 < step < self._config.num_steps and _due(step, self._config.eval_every_n_steps)
        if self._place and is_due and self._metrics.get("step", 0) < step:
            self._evaluate(step)
            self._keep_metrics(self._place, step)

    def after_step(self, step: int, values: dict[str, tf.Tensor], request: StopRequest) -> None:
        last = step == self._config.num_steps
        if step == 1 or step % _LOG_EVERY == 0 or last:
            self._log(step, {name: float(value) for name, value in values.items()})
        if last:
            # The last step is evaluated and saved by `finish`.
            return
        # Clocks and signals of workers differ.
        stops, save_is_due = self._workers.any(bool(request.signal_name), self._save_is_due(step))
        if _due(step, self._config.eval_every_n_steps):
            self._evaluate(step)
            if self._early_stopping:
                self._early_stopping.add(self._metrics[self._task.objective])
            self._save(step)
        elif save_is_due or stops:
            self._save(step)
        if stops:
            name = request.signal_name or "a signal to another worker"
            raise StoppedError(
                f"stopped by {name} after step {step} of {self._config.num_steps}, which is saved "
                f"in {self._place and self._place.name}; the same command goes on from there"
            )

    def finish(self) -> dict[str, float]:
        step = self._learner.step
        if self._early_stopping and self.is_over and step < self._config.num_steps:
            reason = self._early_stopping.describe()
            logging.info("ended at step %d of %d: %s", step, self._config.num_steps, reason)
        # With a folder also against the best constant boxes: children of a search are compared with
        # one another, a training that is kept with no other detector at all.
        self._evaluate(step, with_baseline=self._model_dir is not None)
        self._save(step)
        return self._metrics

    def _log(self, step: int, values: dict[str, float]) -> None:
        self._check_sound()
        seconds = self._count_seconds()
        speed = (step - self._clock_step) * self._config.batch_size / seconds
        remaining = (self._config.num_steps - step) * self._config.batch_size / speed
        # The first step is traced and compiled: its pace is not that of the others.
        pace = f"  {speed:.1f} images/s  ETA {remaining:.0f} s" if step > 1 else ""
        self._restart_clock(step)
        logging.info(
            "step %d/%d  loss %.4f (%s)  rate %.4g%s",
            step,
            self._config.num_steps,
            values["Loss/total_loss"],
            ", ".join(_shares(values)),
            values["learning_rate"],
            pace,
        )
        self._summaries.scalars(step, values | ({"images_per_second": speed} if pace else {}))

    def _check_sound(self) -> None:
        """Raises DivergedError where the loss or a weight is NaN or infinite.

        Such weights must not be evaluated, and not be saved in the place of sound ones.
        """
        if not (fault := self._learner.fault()):
            return
        if step := self._learner.bad_step:
            fault += f"; {self._explanation(step)}"
        advice = "a lower learning rate, a longer warm-up or gradient clipping may help"
        if self._place and (kept := checkpoints.all_in(self._place.written)):
            newest = f"{self._place.name}/{Path(kept[-1]).name}"
            advice += f"; changed, it goes on from {newest}, and another --model_dir starts anew"
        raise DivergedError(f"training diverged: {fault}; {advice}")

    def _explanation(self, step: int) -> str:
        """Returns which tensor of a bad step was bad first, and the images of the step."""
        # The input is a function of the step, so that its batch can be made again.
        batches = training_data.training_set(self._task, self._pipeline, self._seed, step - 1)
        tensor = self._learner.first_bad_tensor(next(iter(batches)))
        first = f"first in {tensor}; " if tensor else ""
        if tensor == "":
            first = "all of it is finite when it is made again; "
        named = training_data.batches(
            self._task, self._pipeline, self._seed, step - 1, lambda example: example["source_id"]
        )
        images = [shown(name.decode("utf-8", "replace")) for name in next(iter(named)).numpy()]
        more = f" and {len(images) - _MAX_NAMED} more" if len(images) > _MAX_NAMED else ""
        return f"{first}its images: {', '.join(images[:_MAX_NAMED])}{more}"

    def _count_seconds(self) -> float:
        """Adds the time since the clock was started to that of training, and returns it."""
        seconds = time.monotonic() - self._clock
        self._train_seconds += seconds
        self._clock += seconds
        return seconds

    def _restart_clock(self, step: int) -> None:
        self._clock, self._clock_step = time.monotonic(), step

    def _evaluate(self, step: int, with_baseline: bool = False) -> None:
        self._count_seconds()
        self._check_sound()
        evaluation, objective = self._pipeline.eval_config, self._task.objective
        with self._learner.averaged_weights():
            self._update_task()
            evaluator = judged(
                self._task.evaluator(self._labels), self._predict, self._evaluation_set
            )
            self._metrics = evaluator.metrics(
                per_category=evaluation.include_metrics_per_category,
                all_per_category=evaluation.all_metrics_per_category,
                with_baseline=with_baseline,
            )
            if self._model_dir and evaluation.num_visualizations:
                self._summaries.predictions(
                    step, self._task, self._predict, self._evaluation_set, evaluation
                )
        value = self._workers.of_first(self._metrics[objective])
        self._metrics |= {
            objective: value,
            "step": step,
            "train_seconds": round(self._train_seconds, 1),
        }
        name = metric_text.display_name(objective)
        logging.info("step %d  %s %.4f", step, name, self._metrics[objective])
        self._summaries.scalars(step, self._metrics)
        # Neither evaluation nor saving counts as training, or speed and ETA would jump.
        self._restart_clock(step)

    def _save_is_due(self, step: int) -> bool:
        if self._config.checkpoint_every_n_steps:
            return _due(step, self._config.checkpoint_every_n_steps)
        return time.monotonic() - self._saved_at > _SECONDS_BETWEEN_CHECKPOINTS

    def _save(self, step: int) -> None:
        self._saved_at = time.monotonic()
        if not (self._place and self._model_dir):
            return
        self._count_seconds()
        self._check_sound()
        self._saved_seconds.assign(self._train_seconds)
        checkpoint_writer.save(self._learner.checkpoint, self._model_dir, step, max_to_keep=2)
        self._keep_metrics(self._place, step)
        self._restart_clock(step)

    def _keep_metrics(self, place: _Place, step: int) -> None:
        """Writes the metrics, and the checkpoint of this step if it is the best."""
        objective = self._task.objective
        best_so_far = self._best.get(objective, -1.0)
        if self._metrics.get("step") == step and self._metrics[objective] >= best_so_far:
            best = place.written / BEST
            checkpoint_writer.save(self._learner.checkpoint, best, step, max_to_keep=1)
            self._best = self._metrics
        metrics = self._metrics | {"best": self._best}
        files.write_json(place.written / _METRICS_FILE, metrics)
        self._summaries.flush()
        place.send()


def _shares(values: dict[str, float]) -> list[str]:
    """Returns the single losses, such as "localization 0.1234"."""
    names = [name for name in values if name.startswith("Loss/") and name != "Loss/total_loss"]
    return [
        f"{name.removeprefix('Loss/').removesuffix('_loss')} {values[name]:.4f}" for name in names
    ]


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _read_metrics(path: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the last and the best metrics; none where the file is missing or damaged."""
    if not path.exists():
        return {}, {}
    try:
        metrics = files.read_json(path, "metrics file", keys=["best"])
    except UserError as error:
        logging.warning("%s; the best checkpoint is sought anew", error)
        return {}, {}
    best = metrics.pop("best")
    return metrics, best if isinstance(best, dict) else {}

"""Trains and evaluates a detector in one process."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import tensorflow as tf
from absl import logging
from google.protobuf import text_format

from mnasdet import config, files
from mnasdet.data import input_pipeline
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.detectors import detector as detectors
from mnasdet.errors import UserError
from mnasdet.evaluation.coco import MAP
from mnasdet.evaluation.evaluate import evaluate, evaluation_set
from mnasdet.protos import architecture_pb2, pipeline_pb2, train_pb2
from mnasdet.training import checkpoints, runtime, targets
from mnasdet.training.learner import Learner
from mnasdet.training.summaries import Summaries

_LOG_EVERY = 50

# The parts that each fine_tune_checkpoint_type takes over; none: all that fit.
_PARTS: dict[str, tuple[str, ...]] = {
    "": (),
    "fine_tune": (),
    "full": (),
    "detection": ("backbone", "feature_pyramid"),
    "classification": ("backbone",),
}


class DivergedError(UserError):
    """The loss is no number any more."""


def strategy() -> tf.distribute.Strategy:
    """All GPUs of this machine, or its CPU."""
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def train(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    model_dir: str | Path | None = None,
    *,
    architecture: architecture_pb2.Architecture | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Trains for `train_config.num_steps`, from the newest checkpoint of `model_dir` on.

    Args:
      model_dir: gets checkpoints, the best one in best/, TensorBoard events, metrics.json and the
        architecture; None writes nothing.
      architecture: in place of the config's own.
      seed: of the weights, the order of the images and their augmentation.

    Returns:
      COCO metrics of the last evaluation, with step and train_seconds (without evaluation).

    Raises:
      DivergedError: the loss became NaN or infinite.
    """
    runtime.seed_everything(seed)
    train_config = pipeline.train_config
    architecture = architecture or config.architecture(pipeline)
    with strategy().scope():
        detector = detectors.build(pipeline, architecture)
        warm_start(detector, train_config)
        learner = Learner(
            detector,
            pipeline.model.ssd,
            train_config,
            keep_averages=pipeline.eval_config.use_moving_averages,
            quantization_delay=quantization_delay(pipeline),
        )
        run = _Run(pipeline, detector, learner, model_dir)
        run.start(architecture)
        start = int(learner.step)
        batches = iter(training_set(pipeline, detector, seed + start))
    readers = [pipeline.train_input_reader, *pipeline.eval_input_reader]
    with input_pipeline.naming_damaged_images(*readers):
        for step in range(start + 1, train_config.num_steps + 1):
            values = learner.update(next(batches))
            learner.average(step)
            run.after_step(step, values)
        return run.finish()


def quantization_delay(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> int:
    """The steps before training rounds to int8; 0 where it never does, or from the first step."""
    if not pipeline.HasField("graph_rewriter"):
        return 0
    return pipeline.graph_rewriter.quantization.delay


def training_set(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, detector: detectors.Detector, seed: int
) -> tf.data.Dataset:
    """Endless batches of image, class_targets and box_targets, spread over the replicas."""
    assigner = targets.from_config(pipeline.model.ssd, detector.anchors)

    def with_targets(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        # A crowd is no object that a box could find.
        single = ~example["is_crowd"]
        classes, boxes = assigner(example["boxes"][single], example["classes"][single])
        return {"image": example["image"], "class_targets": classes, "box_targets": boxes}

    dataset = input_pipeline.training_dataset(
        pipeline.train_input_reader,
        resizer=ImageResizer.from_proto(pipeline.model.ssd.image_resizer),
        batch_size=pipeline.train_config.batch_size,
        augmentations=pipeline.train_config.data_augmentation_options,
        transform=with_targets,
        seed=seed,
    )
    return tf.distribute.get_strategy().experimental_distribute_dataset(dataset)


def warm_start(detector: detectors.Detector, train_config: train_pb2.TrainConfig) -> None:
    """Loads what fits from `fine_tune_checkpoint`."""
    if train_config.fine_tune_checkpoint:
        path = train_config.fine_tune_checkpoint
        loaded = checkpoints.load_weights(
            detector.model, path, partial=True, parts=_PARTS[_checkpoint_type(train_config)]
        )
        total = len(checkpoints.variables_by_name(detector.model))
        logging.info("%s: %d of %d variables loaded", path, loaded, total)


def _checkpoint_type(train_config: train_pb2.TrainConfig) -> str:
    older = "detection" if train_config.from_detection_checkpoint else ""
    return train_config.fine_tune_checkpoint_type or older


class _Run:
    """What happens around the steps: logs, evaluation, checkpoints."""

    def __init__(
        self,
        pipeline: pipeline_pb2.TrainEvalPipelineConfig,
        detector: detectors.Detector,
        learner: Learner,
        model_dir: str | Path | None,
    ):
        self._pipeline = pipeline
        self._config = pipeline.train_config
        self._detector = detector
        self._learner = learner
        self._model_dir = Path(model_dir) if model_dir else None
        self._evaluation_set = evaluation_set(pipeline)
        self._categories = input_pipeline.label_map(pipeline.eval_input_reader[0])
        self._detect = tf.function(detector.detect, autograph=False)
        self._summaries = Summaries(self._model_dir)
        self._metrics: dict[str, float] = {}
        self._best: dict[str, float] = {}
        self._evaluated_at = -1
        self._train_seconds = 0.0

    def start(self, architecture: architecture_pb2.Architecture) -> None:
        """Goes on from the newest checkpoint, if there is one."""
        if self._model_dir:
            self._model_dir.mkdir(parents=True, exist_ok=True)
            self._manager = tf.train.CheckpointManager(
                self._learner.checkpoint, str(self._model_dir), max_to_keep=2
            )
            self._manager.restore_or_initialize()
            if self._manager.latest_checkpoint:
                logging.info("going on from %s", self._manager.latest_checkpoint)
                self._best = _read_json(self._model_dir / "metrics.json").get("best", {})
            for folder in (self._model_dir, self._model_dir / "best"):
                folder.mkdir(exist_ok=True)
                (folder / checkpoints.ARCHITECTURE_FILE).write_text(
                    text_format.MessageToString(architecture)
                )
        self._clock, self._clock_step = time.monotonic(), int(self._learner.step)

    def after_step(self, step: int, values: dict[str, tf.Tensor]) -> None:
        last = step == self._config.num_steps
        if step == 1 or step % _LOG_EVERY == 0 or last:
            self._log(step, {name: float(value) for name, value in values.items()})
        if last:
            return
        if _due(step, self._config.eval_every_n_steps):
            self._evaluate(step)
            self._save(step)
        elif _due(step, self._config.checkpoint_every_n_steps):
            self._save(step)

    def finish(self) -> dict[str, float]:
        step = int(self._learner.step)
        self._evaluate(step)
        self._save(step)
        return self._metrics

    def _log(self, step: int, values: dict[str, float]) -> None:
        if not math.isfinite(values["Loss/total_loss"]):
            raise DivergedError(
                f"training diverged: the loss is {values['Loss/total_loss']} at step {step}; "
                "a lower learning rate, a longer warm-up or gradient clipping may help"
            )
        seconds = time.monotonic() - self._clock
        speed = (step - self._clock_step) * self._config.batch_size / seconds
        self._train_seconds += seconds
        self._restart_clock(step)
        remaining = (self._config.num_steps - step) * self._config.batch_size / speed
        logging.info(
            "step %d/%d  loss %.4f (box %.4f, class %.4f)  rate %.4g  %.1f images/s  ETA %.0f s",
            step,
            self._config.num_steps,
            values["Loss/total_loss"],
            values["Loss/localization_loss"],
            values["Loss/classification_loss"],
            values["learning_rate"],
            speed,
            remaining,
        )
        self._summaries.scalars(step, values | {"images_per_second": speed})

    def _restart_clock(self, step: int) -> None:
        self._clock, self._clock_step = time.monotonic(), step

    def _evaluate(self, step: int) -> None:
        evaluation = self._pipeline.eval_config
        with self._learner.averaged_weights():
            self._metrics = evaluate(
                self._detect,
                self._evaluation_set,
                self._categories,
                evaluation.include_metrics_per_category,
            )
            if self._model_dir and evaluation.num_visualizations:
                self._summaries.detections(step, self._evaluation_set, self._detect, evaluation)
        self._metrics |= {"step": step, "train_seconds": round(self._train_seconds, 1)}
        logging.info("step %d  mAP %.4f", step, self._metrics[MAP])
        self._summaries.scalars(step, self._metrics)
        self._restart_clock(step)

    def _save(self, step: int) -> None:
        if not self._model_dir:
            return
        self._manager.save(step)
        if self._metrics.get("step") == step and self._metrics[MAP] >= self._best.get(MAP, 0.0):
            self._best = self._metrics
            best = tf.train.CheckpointManager(
                self._learner.checkpoint, str(self._model_dir / "best"), max_to_keep=1
            )
            best.save(step)
        metrics = self._metrics | {"best": self._best}
        files.write(self._model_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        self._restart_clock(step)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text()) if path.exists() else {}

"""A family of models in a folder, from the frontier of a search to their exports."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from absl import logging

from mnasdet import config, search_stages
from mnasdet.errors import UserError
from mnasdet.protos import pipeline_pb2, search_pb2
from mnasdet.search import attempts, axes, chain, latency, results
from mnasdet.search.axes import Axes
from mnasdet.search.frontier import frontier_scaling
from mnasdet.search.frontier.frontier_scaling import Variant
from mnasdet.search.frontier.scaled_models import (
    RESULTS_FILE,
    ScaledModel,
    ScaledModels,
    executor_from_config,
    with_checkpoints,
)
from mnasdet.search.proxy import proxy_task
from mnasdet.search.training_queue import QueueProgress, num_workers
from mnasdet.search.trials.trial_store import Trial, TrialStore
from mnasdet.training import checkpoints, runtime


@dataclass(frozen=True)
class Scales:
    """Which members of a frontier are trained, and at which scales.

    Attributes:
      budgets: costs; for each the most accurate member within it. Without any, the whole frontier.
      max_picks: members without budgets, evenly spread.
      repeats, depth_multipliers: in place of the architectures' own; empty: those.
    """

    budgets: Sequence[float] = ()
    max_picks: int = 3
    repeats: Sequence[int] = ()
    depth_multipliers: Sequence[float] = ()


def run(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    search_dir: Path,
    folder: Path,
    scales: Scales,
    *,
    num_train_steps: int = 0,
    retry_failed: bool = False,
) -> list[ScaledModel]:
    """Trains the variants of a search's frontier, exports the best, and returns all of them.

    Args:
      pipeline: of the full trainings; that of the search or another.
      search_dir: the folder of the search.
      folder: of the models.
      num_train_steps: in place of the config's; 0: those.
      retry_failed: train what has failed before once more.
    """
    runtime.use_threads()
    runtime.log_devices()
    full = _full_training(pipeline, search_dir, num_train_steps)
    # The search's own: its store and its latency source are not those of another config.
    searched = config.load(search_dir / "pipeline.config", readers=())
    if (folder / RESULTS_FILE).exists():
        scaled = ScaledModels.load(folder, full)
    else:
        scaled = ScaledModels.create(folder, full, _variants(full, searched, search_dir, scales))
    if retry_failed:
        scaled.forget_failures()
    _train(scaled, pipeline.search_config.executor, axes.from_config(searched))
    scaled.deploy()
    return scaled.models


def _full_training(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, search_dir: Path, num_steps: int
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the pipeline whose train_config is that of the full trainings."""
    full = pipeline_pb2.TrainEvalPipelineConfig()
    full.CopyFrom(pipeline)
    search_config = full.search_config
    if search_config.HasField("retrain_config"):
        # Moved: `winner.retraining` would put it in once more, over the steps of the flag.
        full.train_config.CopyFrom(search_config.retrain_config)
        search_config.ClearField("retrain_config")
    if num_steps:
        full.train_config.num_steps = num_steps
    if search_config.HasField("pretrain_config") and not full.train_config.fine_tune_checkpoint:
        # As the search's own winner.
        pretrained = checkpoints.find(search_dir / "pretrained")
        full.train_config.fine_tune_checkpoint = pretrained
    full = proxy_task.from_what_fits(full)
    with_checkpoints(full)
    if problems := config.check(full):
        raise UserError("; ".join(problems))
    return full


def _variants(
    full: pipeline_pb2.TrainEvalPipelineConfig,
    searched: pipeline_pb2.TrainEvalPipelineConfig,
    search_dir: Path,
    scales: Scales,
) -> list[Variant]:
    """Returns the variants to train, from the search as it is now.

    Args:
      searched: the search's own config.
    """
    settings = searched.search_config
    frontier = results.frontier(_trials(search_dir, settings.trial_store))
    if not frontier:
        raise UserError(f"{search_dir}: none of its trials is complete yet")
    source = latency.from_config(search_stages.common_latency(settings))
    if scales.budgets:
        picks = frontier_scaling.best_within(frontier, scales.budgets, source.unit)
    else:
        picks = frontier_scaling.spread(frontier, scales.max_picks)
    logging.info(
        "picked trials %s of the %d on the frontier",
        ", ".join(str(trial.number) for trial in picks),
        len(frontier),
    )
    return frontier_scaling.variants(full, picks, scales.repeats, scales.depth_multipliers, source)


def _trials(search_dir: Path, trial_store: search_pb2.TrialStoreConfig) -> list[Trial]:
    location = trial_store.url or search_dir / results.TRIALS_FILE
    name = results.search_name(search_dir, trial_store)
    with closing(TrialStore(location, name, create=False)) as store:
        return chain.from_description(store.description()).aligned(store.trials())


def _train(scaled: ScaledModels, executor_config: search_pb2.ExecutorConfig, weighed: Axes) -> None:
    """Trains what is not finished, and tells how far it is."""
    left = [model for model in scaled.models if not model.is_finished]
    # All train for equally many steps on equally many images.
    workers = num_workers(executor_config)
    progress = QueueProgress(
        [model.multiply_adds for model in left], len(scaled.models) - len(left), workers
    )

    def show(model: ScaledModel) -> None:
        result = f"FAILED: {model.error}"
        if model.error is None:
            result = f"{weighed.accuracy} {model.accuracy:.4f} (proxy {model.proxy_accuracy:.4f})"
        progress(model.multiply_adds, f"{model.name}  {result}  {model.cost:.3f} {weighed.unit}")

    executor = executor_from_config(executor_config)
    try:
        scaled.train(executor, workers, show, attempts.pauses(executor_config.max_retries))
    finally:
        executor.close()

"""The end of a search for its best architecture: full training, export, benchmark."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from mnasdet import architectures, config, deployment, text_proto
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.search import one_shot
from mnasdet.search.trials.trial_store import Trial
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.training import checkpoints, run_files, trainer


def finish(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    trial: Trial,
    folder: Path,
    device: DeviceSpec | None = None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Retrains the trial's architecture, or goes on doing so, then exports and benchmarks it.

    Args:
      folder: gets pipeline.config, checkpoints, metrics.json and the files of `deployment.deploy`.
      device: that is measured on; this machine if left out.

    Returns:
      The retrained model's metrics and the benchmark's result.
    """
    architecture = architectures.from_trial(trial.architecture)
    _forget_another(folder, architecture)
    retrained = retraining(pipeline, architecture)
    shared = pipeline.search_config.one_shot
    if shared.checkpoint and shared.winner_starts_from_shared_weights:
        start = folder.with_name(f"{folder.name}_start")
        if not checkpoints.all_in(folder):
            one_shot.save_part(pipeline, architecture, start)
        retrained.train_config.fine_tune_checkpoint = str(start)
        # All of it fits, whatever part of another checkpoint the config would take.
        retrained.train_config.fine_tune_checkpoint_type = "full"
    metrics = trainer.train(retrained, folder, seed=trial.seed)
    # From the folder: what is exported is what was saved.
    task = checkpoints.load_task(retrained, folder)
    return metrics, deployment.deploy(task, retrained, folder, device)


def retraining(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, architecture: architecture_pb2.Architecture
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the config of an architecture's full training, which needs no search to be read."""
    full = config.with_architecture(pipeline, architecture)
    if pipeline.search_config.HasField("retrain_config"):
        full.train_config.CopyFrom(pipeline.search_config.retrain_config)
    full.ClearField("search_config")
    return full


def _forget_another(folder: Path, architecture: architecture_pb2.Architecture) -> None:
    """Removes another architecture's training: a search that went on may have found a better."""
    own = folder / run_files.ARCHITECTURE_FILE
    if not own.exists():
        return
    # Version 0.1 wrote a searched image size here as it did into its trials.
    trained = architectures.with_input(text_proto.read(own, architecture_pb2.Architecture))
    if trained != architecture:
        shutil.rmtree(folder)

"""What happens to the best architecture of a search: full training, export, benchmark."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from mnasdet import files
from mnasdet.evaluation.evaluate import first_images
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.search.trial_store import Trial
from mnasdet.tflite.benchmark import benchmark
from mnasdet.tflite.export import NUM_PARITY_IMAGES, export
from mnasdet.training import checkpoints, trainer


def finish(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, trial: Trial, folder: Path
) -> tuple[dict[str, float], dict[str, Any]]:
    """Retrains the trial's architecture, or goes on doing so, then exports and benchmarks it.

    Args:
      folder: gets checkpoints, metrics.json, detect.tflite, export.json and benchmark.json.

    Returns:
      The retrained detector's metrics and the benchmark's result.
    """
    architecture = text_format.Parse(trial.architecture, architecture_pb2.Architecture())
    _forget_another(folder, architecture)
    retraining = pipeline_pb2.TrainEvalPipelineConfig()
    retraining.CopyFrom(pipeline)
    if pipeline.search_config.HasField("retrain_config"):
        retraining.train_config.CopyFrom(pipeline.search_config.retrain_config)
    metrics = trainer.train(retraining, folder, architecture=architecture, seed=trial.seed)
    detector = checkpoints.load_detector(retraining, folder)
    export(detector, folder, images=first_images(retraining, NUM_PARITY_IMAGES))
    timing = benchmark(folder / "detect.tflite")
    files.write(folder / "benchmark.json", json.dumps(timing, indent=2) + "\n")
    return metrics, timing


def _forget_another(folder: Path, architecture: architecture_pb2.Architecture) -> None:
    """A search that went on may have found a better one: its training starts anew."""
    own = folder / checkpoints.ARCHITECTURE_FILE
    if own.exists() and own.read_text() != text_format.MessageToString(architecture):
        shutil.rmtree(folder)

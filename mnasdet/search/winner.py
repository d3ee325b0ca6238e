"""What happens to the best architecture of a search: full training, export, benchmark."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from absl import logging
from google.protobuf import text_format

from mnasdet import config, files, text_proto
from mnasdet.data.input_pipeline import label_map
from mnasdet.evaluation.coco import MAP
from mnasdet.evaluation.evaluate import evaluate_pipeline, first_images
from mnasdet.protos import architecture_pb2, pipeline_pb2
from mnasdet.search.proxy.proxy_task import of_architecture
from mnasdet.search.trials.trial_store import Trial
from mnasdet.tflite import accuracy
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.export import (
    GRAPH_FILE,
    NMS_GRAPH_FILE,
    NUM_PARITY_IMAGES,
    export,
    write_description,
)
from mnasdet.training import checkpoints, run_files, trainer


def finish(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    trial: Trial,
    folder: Path,
    device: DeviceSpec | None = None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Retrains the trial's architecture, or goes on doing so, then exports and benchmarks it.

    Args:
      folder: gets pipeline.config, checkpoints, metrics.json and the files of `deploy`.
      device: that is measured on; this machine if left out.

    Returns:
      The retrained detector's metrics and the benchmark's result.
    """
    architecture = text_format.Parse(trial.architecture, architecture_pb2.Architecture())
    _forget_another(folder, architecture)
    retrained = retraining(pipeline, architecture)
    metrics = trainer.train(retrained, folder, seed=trial.seed)
    return metrics, deploy(retrained, folder, device)


def retraining(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, architecture: architecture_pb2.Architecture
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """The config of an architecture's full training, which needs no search to be read."""
    full = config.with_architecture(of_architecture(pipeline, architecture), architecture)
    if pipeline.search_config.HasField("retrain_config"):
        full.train_config.CopyFrom(pipeline.search_config.retrain_config)
    full.ClearField("search_config")
    return full


def deploy(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, folder: Path, device: DeviceSpec | None = None
) -> dict[str, Any]:
    """Exports the detector that was trained into a folder, as float32, and benchmarks it.

    Args:
      folder: gets detect.tflite with export.json, detect_nms.tflite, which apps open as it is, with
        export_nms.json, and benchmark.json.
      device: that is measured on; this machine if left out.

    Returns:
      The benchmark's result for detect.tflite, and as "nms" that for detect_nms.tflite.
    """
    detector = checkpoints.load_detector(pipeline, folder)
    logging.info("exporting to %s", folder)
    images = first_images(pipeline, NUM_PARITY_IMAGES)
    labels = label_map(pipeline.eval_input_reader[0])
    export(detector, folder, images=images, labels=labels)
    described = export(
        detector, folder, images=images, labels=labels, nms=True, graph_name=NMS_GRAPH_FILE
    )
    if accuracy.is_quick(pipeline):
        described["accuracy"] = accuracy.compare(
            detector,
            pipeline,
            folder / NMS_GRAPH_FILE,
            lambda detect: evaluate_pipeline(pipeline, detect)[MAP],
            others=(),
        )
        write_description(folder, described)
    logging.info("timing %s and %s", GRAPH_FILE, NMS_GRAPH_FILE)
    with (device or DeviceSpec()).open() as opened:
        timing = opened.benchmark(folder / GRAPH_FILE)
        timing["nms"] = opened.benchmark(folder / NMS_GRAPH_FILE)
    files.write_json(folder / "benchmark.json", timing)
    return timing


def _forget_another(folder: Path, architecture: architecture_pb2.Architecture) -> None:
    """A search that went on may have found a better one: its training starts anew."""
    own = folder / run_files.ARCHITECTURE_FILE
    if own.exists() and text_proto.read(own, architecture_pb2.Architecture) != architecture:
        shutil.rmtree(folder)

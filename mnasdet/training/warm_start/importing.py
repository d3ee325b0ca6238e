"""Checkpoints of mnasdet from the weights of other programs."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from mnasdet import config, models
from mnasdet.config_checks.files import TO_BE_CONFIGURED
from mnasdet.data import input_pipeline
from mnasdet.errors import CheckpointError
from mnasdet.protos import pipeline_pb2
from mnasdet.training import checkpoint_writer, checkpoints, run_files
from mnasdet.training.warm_start import load
from mnasdet.training.warm_start.report import Report


def import_checkpoint(pipeline: pipeline_pb2.TrainEvalPipelineConfig, folder: Path) -> Report:
    """Writes a checkpoint of the config's model with the weights of its `fine_tune_checkpoint`.

    The folder gets ckpt-0 and the files that a training writes beside its own; a label map only
    where the config names one.

    Raises:
      CheckpointError: the weights do not fit, or the folder has a checkpoint already.
    """
    if found := checkpoints.all_in(folder):
        raise CheckpointError(
            f"{folder}: has a checkpoint already, {found[-1]}; name another folder"
        )
    labels = _labels(pipeline)
    blueprint = config.resolve(pipeline)
    model = models.build(blueprint).model
    report = load.from_config(model, pipeline.train_config)
    if report is None:
        raise CheckpointError("train_config.fine_tune_checkpoint is missing; name the weights")
    weights = {checkpoints.WEIGHTS: checkpoints.variables_by_name(model)}
    checkpoint_writer.save(tf.train.Checkpoint(**weights), folder, step=0, max_to_keep=1)
    written = pipeline_pb2.TrainEvalPipelineConfig()
    written.CopyFrom(pipeline)
    # A training from the checkpoint needs the file no more.
    written.train_config.ClearField("fine_tune_checkpoint")
    run_files.write(folder, blueprint, written, labels)
    return report


def _labels(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> dict[int, str] | None:
    """Returns the names of the classes; None where the config leaves their file open."""
    for reader in pipeline.eval_input_reader:
        if reader.label_map_path and TO_BE_CONFIGURED not in reader.label_map_path:
            return input_pipeline.label_map(reader)
    return None

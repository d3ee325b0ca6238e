"""The task that children train on."""

from __future__ import annotations

from pathlib import Path

from mnasdet.protos import pipeline_pb2
from mnasdet.training import checkpoints, trainer


def prepare(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, folder: Path
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """The pipeline of the children: the config's, started from weights that are trained into
    `folder` first if `pretrain_config` says so. Interrupted, that training goes on."""
    if not pipeline.search_config.HasField("pretrain_config"):
        return pipeline
    pretraining = pipeline_pb2.TrainEvalPipelineConfig()
    pretraining.CopyFrom(pipeline)
    pretraining.train_config.CopyFrom(pipeline.search_config.pretrain_config)
    trainer.train(pretraining, folder, seed=pipeline.search_config.seed)
    children = pipeline_pb2.TrainEvalPipelineConfig()
    children.CopyFrom(pipeline)
    children.train_config.fine_tune_checkpoint = checkpoints.find(folder)
    return children

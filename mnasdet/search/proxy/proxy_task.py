"""The task that children train on."""

from __future__ import annotations

from pathlib import Path

from mnasdet.protos import pipeline_pb2


def prepare(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, folder: Path
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the pipeline of the children.

    It is the config's, started from weights that are trained into `folder` first if
    `pretrain_config` says so. With `one_shot`, the weights that children share are trained beside
    it; with `differentiable`, the supernet whose networks they are. Interrupted, these trainings go
    on.
    """
    children = _pretrained(pipeline, folder)
    if pipeline.search_config.HasField("one_shot"):
        from mnasdet.search import one_shot

        shared = one_shot.train(children, folder.with_name("supernet"))
        children.search_config.one_shot.checkpoint = shared
    if pipeline.search_config.HasField("differentiable"):
        from mnasdet.search.differentiable import supernet_training

        supernet = folder.with_name("supernet")
        supernet_training.train(children, supernet)
        children.search_config.differentiable.folder = str(supernet)
    return children


def _pretrained(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, folder: Path
) -> pipeline_pb2.TrainEvalPipelineConfig:
    search_config = pipeline.search_config
    if not search_config.HasField("pretrain_config"):
        return from_what_fits(pipeline)
    # A search whose children train in other processes starts without TensorFlow.
    from mnasdet.training import checkpoints, trainer

    pretraining = _copy(pipeline)
    pretraining.train_config.CopyFrom(search_config.pretrain_config)
    trainer.train(pretraining, folder, seed=search_config.seed)
    children = _copy(pipeline)
    children.train_config.fine_tune_checkpoint = checkpoints.find(folder)
    return from_what_fits(children)


def from_what_fits(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the pipeline of children and a winner that start from the weights that fit.

    Children differ in their layers, so no share of matching variables is asked for, unless the
    config has one. The winner's training starts as the children's do, unless it says otherwise: an
    empty `fine_tune_checkpoint` is random weights.
    """
    copy = _copy(pipeline)
    trainings = [copy.train_config]
    for name in ("one_shot", "differentiable"):
        if copy.search_config.HasField(name):
            shared = getattr(copy.search_config, name).train_config
            if not shared.fine_tune_checkpoint:
                shared.fine_tune_checkpoint = copy.train_config.fine_tune_checkpoint
            trainings.append(shared)
    if copy.search_config.HasField("retrain_config"):
        retraining = copy.search_config.retrain_config
        if not retraining.HasField("fine_tune_checkpoint"):
            for field in ("fine_tune_checkpoint", "fine_tune_checkpoint_type"):
                if copy.train_config.HasField(field):
                    setattr(retraining, field, getattr(copy.train_config, field))
        trainings.append(retraining)
    if copy.search_config.second_stage.HasField("train_config"):
        trainings.append(copy.search_config.second_stage.train_config)
    for training in trainings:
        if training.fine_tune_checkpoint and not training.HasField("min_matched_share"):
            training.min_matched_share = 0.0
    return copy


def _copy(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
) -> pipeline_pb2.TrainEvalPipelineConfig:
    copy = pipeline_pb2.TrainEvalPipelineConfig()
    copy.CopyFrom(pipeline)
    return copy

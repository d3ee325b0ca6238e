"""Pipeline configs and architectures: read, checked and resolved to a Blueprint. Every config error
is raised here."""

from __future__ import annotations

import importlib.resources
import os
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from google.protobuf import text_format

from mnasdet import includes, packaged, passwords, text_proto
from mnasdet.architecture_string.conversion import from_string
from mnasdet.architectures import input_size
from mnasdet.blueprint import Blueprint
from mnasdet.config_checks.architecture import architecture_problems
from mnasdet.config_checks.files import TO_BE_CONFIGURED
from mnasdet.config_checks.pipeline import READERS, pipeline_problems
from mnasdet.config_checks.section import Section
from mnasdet.config_checks.training import trainings
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.errors import ConfigError, nearest, shown
from mnasdet.feature_extractors import faster_rcnn, ssd
from mnasdet.protos import architecture_pb2, model_pb2, pipeline_pb2, ssd_pb2
from mnasdet.text_faults.faults import MAX_TOLD

# The OD API's feature extractors, by the model's field in DetectionModel.
_EXTRACTORS = {"ssd": ssd, "faster_rcnn": faster_rcnn}

# The most problems of an architecture that its one line tells.
_MAX_JOINED = 5

# The letters of breaks that protobuf writes, after an even number of backslashes.
_BREAKS = {"n": "\n", "r": "\r", "t": "\t"}
_LINE_BREAK = re.compile(r"((?<!\\)(?:\\\\)*)\\([nrt])")

_FILE_SUFFIXES = (".textproto", ".pbtxt", ".txt")


def load(
    path: str | os.PathLike,
    *,
    train_input: Sequence[str] = (),
    eval_input: Sequence[str] = (),
    label_map: str = "",
    readers: Collection[str] = READERS,
    architecture: str = "",
    fine_tune_checkpoint: str = "",
    change: Callable[[pipeline_pb2.TrainEvalPipelineConfig], None] | None = None,
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the pipeline config in a text-proto file and those it includes, checked.

    Args:
      path: as `packaged.find_config` takes it.
      architecture: in place of the config's, as `load_architecture` takes it. What `model.ssd`
        says of predictor, anchors and hyper-parameters holds for it too; of `model.faster_rcnn`,
        the number of proposals.
      train_input, eval_input: record files or patterns, in place of the config's.
      label_map: path, in place of both readers'.
      fine_tune_checkpoint: in place of train_config's.
      change: puts in what a command's other flags say, ahead of the checks: a flag is held to the
        same rules as the field in whose place it stands.
      readers: the input readers that will be used; what is wrong with others does not matter.

    Raises:
      ConfigError: with all problems, one a line.
    """
    if not path:
        raise ConfigError("--pipeline_config_path is missing; name a pipeline config")
    path = packaged.find_config(path)
    source = includes.read(path)
    pipeline = source.message
    _override(pipeline, train_input, eval_input, label_map)
    if architecture:
        _replace_architecture(pipeline, load_architecture(architecture))
    if fine_tune_checkpoint:
        pipeline.train_config.fine_tune_checkpoint = fine_tune_checkpoint
    if change:
        change(pipeline)
    _drop_placeholders(pipeline)
    if problems := check(pipeline, readers):
        raise ConfigError(_report(problems, source))
    return pipeline


def to_text(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> str:
    """Returns a config as it is written to a file.

    It has a digest, which `load` compares, and a database's URL without its password.
    """
    written = pipeline_pb2.TrainEvalPipelineConfig()
    written.CopyFrom(pipeline)
    remove_password(written)
    text = text_format.MessageToString(written)
    # A path may have a line break in it; one that is written \n would be taken for Windows'.
    text = _LINE_BREAK.sub(lambda found: f"{found[1]}\\{ord(_BREAKS[found[2]]):03o}", text)
    return text_proto.sealed(text)


def remove_password(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> None:
    """Takes the password out of the URL of `trial_store`."""
    if pipeline.search_config.trial_store.url:
        store = pipeline.search_config.trial_store
        store.url = passwords.removed(store.url)


def _override(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    train_input: Sequence[str],
    eval_input: Sequence[str],
    label_map: str,
) -> None:
    if train_input:
        pipeline.train_input_reader.tf_record_input_reader.input_path[:] = train_input
    if eval_input and not pipeline.eval_input_reader:
        reader = pipeline.eval_input_reader.add(shuffle=False)
        if pipeline.train_input_reader.HasField("features"):
            reader.features = pipeline.train_input_reader.features
    for reader in pipeline.eval_input_reader:
        if eval_input:
            reader.tf_record_input_reader.input_path[:] = eval_input
    if label_map:
        for reader in [pipeline.train_input_reader, *pipeline.eval_input_reader]:
            reader.label_map_path = label_map


def with_architecture(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, resolved: architecture_pb2.Architecture
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the config of exactly this architecture, which needs nothing more of the model."""
    copy = pipeline_pb2.TrainEvalPipelineConfig()
    copy.CopyFrom(pipeline)
    _replace_architecture(copy, resolved)
    kind = copy.model.WhichOneof("model")
    if kind in _EXTRACTORS:
        _EXTRACTORS[kind].replace_all(getattr(copy.model, kind))
    return copy


def _replace_architecture(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, architecture: architecture_pb2.Architecture
) -> None:
    pipeline.model.architecture.CopyFrom(architecture)
    kind = pipeline.model.WhichOneof("model")
    if kind in _EXTRACTORS:
        _EXTRACTORS[kind].replace(getattr(pipeline.model, kind))


def _drop_placeholders(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> None:
    """Drops a sample config's placeholders: it then trains from scratch, and says so."""
    for training in trainings(Section(pipeline, "", [])):
        path = training.message.fine_tune_checkpoint
        if TO_BE_CONFIGURED in path:
            field = training.field("fine_tune_checkpoint")
            logging.warning('%s is "%s": training starts from random weights', field, path)
            training.message.ClearField("fine_tune_checkpoint")


def _report(problems: list[str], source: includes.Source) -> str:
    """Returns one line a problem, with the file and the line that it is about."""
    told = problems[:MAX_TOLD]
    places = [source.place_of(problem.split()[0].rstrip(":")) for problem in told]
    if len(problems) == 1:
        return f"{places[0] or source.path}: {problems[0]}"
    listed = []
    for place, problem in zip(places, told, strict=True):
        where = f"{place}: " if place else ""
        if place and place.path == source.path:
            where = f"line {place.line}: "  # The first line names this file.
        listed.append(f"  {where}{problem}")
    if len(problems) > MAX_TOLD:
        listed.append(f"  and {len(problems) - MAX_TOLD} more")
    return "\n".join([f"{len(problems)} problems in {source.path}:", *listed])


def check(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, readers: Collection[str] = READERS
) -> list[str]:
    """Returns all problems: each the field's path, its value and what is allowed."""
    if not pipeline.HasField("model"):
        return pipeline_problems(pipeline, readers=readers)
    try:
        resolved = _merged(pipeline.model)
    except ConfigError as error:
        field = "model.architecture_name: " if pipeline.model.architecture_name else ""
        return [f"{field}{error}", *pipeline_problems(pipeline, readers=readers)]
    kind = pipeline.model.WhichOneof("model")
    # An architecture without settings is checked as one of a detector of one stage.
    rooted = _EXTRACTORS.get(kind or "", ssd).rooted
    problems = [
        *pipeline_problems(pipeline, resolved, readers),
        *(rooted(problem, pipeline.model) for problem in architecture_problems(resolved)),
    ]
    # Backbone and feature pyramid may share their hyper-parameters.
    return list(dict.fromkeys(problems))


def resolve(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    architecture: architecture_pb2.Architecture | None = None,
) -> Blueprint:
    """Returns what a checked config builds.

    Args:
      architecture: in place of the config's: all of it but the number of proposals, as a search
        space decodes it or as it lies beside checkpoints. A config of two-stage detectors builds
        one-stage ones, too, with the settings of `one_stage`: a search samples both.
    """
    resolved = architecture or _merged(pipeline.model)
    kind, settings = _kind_and_settings(pipeline.model, resolved)
    if architecture and kind == "faster_rcnn":
        resolved = architecture_pb2.Architecture()
        resolved.CopyFrom(architecture)
        faster_rcnn.merge(settings, resolved)
    return Blueprint(
        kind=kind,
        architecture=resolved,
        resizer=ImageResizer.from_proto(settings.image_resizer).resized(input_size(resolved)),
        num_classes=settings.num_classes,
        settings=settings,
        quantized=pipeline.HasField("graph_rewriter"),
    )


def _kind_and_settings(
    model: model_pb2.DetectionModel, architecture: architecture_pb2.Architecture
) -> tuple[str, Any]:
    """Returns the kind of a network, a member of `model`, and the message with its settings.

    Raises:
      ConfigError: the config has no settings for such a network.
    """
    kind = model.WhichOneof("model")
    assert kind
    settings = getattr(model, kind)
    has_regions = architecture.HasField("region_head")
    if kind == "ssd" and has_regions:
        raise ConfigError(
            "model.ssd builds detectors of one stage, but the architecture has a region_head; "
            "write model { faster_rcnn { ... } }"
        )
    if kind != "faster_rcnn" or has_regions:
        return kind, settings
    if not settings.HasField("one_stage"):
        raise ConfigError(
            "model.faster_rcnn.one_stage is missing, but the architecture has no region_head and "
            "is a detector of one stage; write its box_coder, matcher, loss and post_processing "
            "there"
        )
    one_stage = ssd_pb2.Ssd()
    one_stage.CopyFrom(settings.one_stage)
    one_stage.num_classes = settings.num_classes
    one_stage.image_resizer.CopyFrom(settings.image_resizer)
    return "ssd", one_stage


def _merged(model: model_pb2.DetectionModel) -> architecture_pb2.Architecture:
    """Returns the architecture of a config.

    That is `model.architecture` or the named one, with the box predictor, the anchors and the
    feature extractor's `conv_hyperparams` of `model.ssd` where those are set, or the proposals of
    `model.faster_rcnn`; else what those messages describe. Other models have no network but the
    named one.
    """
    resolved = architecture_pb2.Architecture()
    kind = model.WhichOneof("model") or "ssd"
    match model.WhichOneof("architecture_oneof"):
        case "architecture":
            resolved.CopyFrom(model.architecture)
            # A config of version 0.1 said here what the architecture was published at, or what its
            # own resizer says as well.
            resolved.ClearField("image_size")
        case "architecture_name":
            resolved.CopyFrom(load_architecture(model.architecture_name))
        case _ if kind in _EXTRACTORS:
            described = _EXTRACTORS[kind].architecture(getattr(model, kind), load_architecture)
            resolved.CopyFrom(described)
        case _:
            raise ConfigError(
                "model.architecture_name is missing; name a network, or give model.architecture"
            )
    if kind in _EXTRACTORS:
        _EXTRACTORS[kind].merge(getattr(model, kind), resolved)
    return resolved


def load_architecture(name_or_path: str) -> architecture_pb2.Architecture:
    """Returns the architecture of a name, a text-proto file or an architecture string; checked.

    Raises:
      ConfigError: there is none of that name, or it has problems.
    """
    names = architecture_names()
    path = Path(name_or_path)
    if name_or_path in names:
        path = _architectures() / f"{name_or_path}.textproto"
    elif not os.path.isfile(path) and path.suffix not in _FILE_SUFFIXES:
        if "/" in name_or_path:
            return _checked(from_string(name_or_path), "architecture string")
        raise ConfigError(
            f'no architecture "{shown(name_or_path)}"; {nearest(name_or_path, names)}, or the path '
            "of a .textproto file, or an architecture string"
        )
    loaded = text_proto.read(path, architecture_pb2.Architecture)
    if loaded.HasField("image_size"):
        # Version 0.1 trained at the config's size whatever this said, but for a search's trials.
        size = f"{{ height: {loaded.image_size} width: {loaded.image_size} }}"
        raise ConfigError(
            f"{path}: image_size was replaced: write input {size} to train at that size, or "
            f"published_at {size} for information alone"
        )
    return _checked(loaded, str(path))


def load_trained_architecture(path: str | os.PathLike) -> architecture_pb2.Architecture:
    """Returns the architecture that a training wrote beside its checkpoints; checked.

    Version 0.1 trained at the size of the config, which lies beside it, whatever `image_size` said.
    """
    loaded = text_proto.read(path, architecture_pb2.Architecture)
    loaded.ClearField("image_size")
    return _checked(loaded, str(path))


def _checked(loaded: architecture_pb2.Architecture, where: str) -> architecture_pb2.Architecture:
    if problems := architecture_problems(loaded):
        more = f"; and {len(problems) - _MAX_JOINED} more" if len(problems) > _MAX_JOINED else ""
        raise ConfigError(f"{where}: {'; '.join(problems[:_MAX_JOINED])}{more}")
    return loaded


def architecture_names() -> list[str]:
    """Returns the published architectures, sorted."""
    return sorted(path.stem for path in _architectures().glob("*.textproto"))


def _architectures() -> Path:
    return Path(str(importlib.resources.files("mnasdet.configs"))) / "architectures"

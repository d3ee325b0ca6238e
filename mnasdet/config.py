"""Pipeline configs and architectures: read, checked and resolved. Every config error is raised
here."""

from __future__ import annotations

import importlib.resources
import os
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from mnasdet import text_proto
from mnasdet.config_checks.architecture import architecture_problems
from mnasdet.config_checks.pipeline import READERS, pipeline_problems
from mnasdet.errors import ConfigError, nearest
from mnasdet.networks.hyperparams import Hyperparams, from_proto
from mnasdet.protos import architecture_pb2, pipeline_pb2, ssd_pb2

# The published architecture that has a feature extractor's backbone and feature pyramid.
_FEATURE_EXTRACTORS = {"ssd_mobilenet_v2_mnasfpn": "mobilenet_v2_mnasfpn"}


def load(
    path: str | os.PathLike,
    *,
    train_input: Sequence[str] = (),
    eval_input: Sequence[str] = (),
    label_map: str = "",
    readers: Collection[str] = READERS,
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """The pipeline config in a text-proto file, checked.

    Args:
      train_input, eval_input: record files or patterns, in place of the config's.
      label_map: path, in place of both readers'.
      readers: the input readers that will be used; what is wrong with others does not matter.

    Raises:
      ConfigError: with all problems, one a line.
    """
    if not path:
        raise ConfigError("--pipeline_config_path is missing; name a pipeline config")
    text = text_proto.read_text(path)
    pipeline = text_proto.parse(text, pipeline_pb2.TrainEvalPipelineConfig, str(path))
    _override(pipeline, train_input, eval_input, label_map)
    if problems := check(pipeline, readers):
        raise ConfigError(_report(problems, str(path), text))
    return pipeline


def _override(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    train_input: Sequence[str],
    eval_input: Sequence[str],
    label_map: str,
) -> None:
    if train_input:
        pipeline.train_input_reader.tf_record_input_reader.input_path[:] = train_input
    if eval_input and not pipeline.eval_input_reader:
        pipeline.eval_input_reader.add(shuffle=False)
    for reader in pipeline.eval_input_reader:
        if eval_input:
            reader.tf_record_input_reader.input_path[:] = eval_input
    if label_map:
        for reader in [pipeline.train_input_reader, *pipeline.eval_input_reader]:
            reader.label_map_path = label_map


def _report(problems: list[str], path: str, text: str) -> str:
    """One line a problem, with the line of the file where only one can be meant."""
    lines = [_line(problem, text) for problem in problems]
    if len(problems) == 1:
        return f"{path}{f':{lines[0]}' if lines[0] else ''}: {problems[0]}"
    listed = [
        f"  {f'line {line}: ' if line else ''}{problem}"
        for line, problem in zip(lines, problems, strict=True)
    ]
    return "\n".join([f"{len(problems)} problems in {path}:", *listed])


def _line(problem: str, text: str) -> int | None:
    field = problem.split()[0].rstrip(":").rpartition(".")[2]
    pattern = re.compile(rf"(^|[\s{{;,]){re.escape(field)}\s*[:{{]")
    lines = [
        number
        for number, line in enumerate(text.splitlines(), start=1)
        if pattern.search(line.partition("#")[0])
    ]
    return lines[0] if len(lines) == 1 else None


def check(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, readers: Collection[str] = READERS
) -> list[str]:
    """All problems: each the field's path, its value and what is allowed."""
    if not pipeline.HasField("model"):
        return pipeline_problems(pipeline, readers=readers)
    try:
        resolved = architecture(pipeline)
    except ConfigError as error:
        field = "model.architecture_name: " if pipeline.model.architecture_name else ""
        return [f"{field}{error}", *pipeline_problems(pipeline, readers=readers)]
    max_level = resolved.feature_pyramid.mnasfpn.max_level
    return [
        *pipeline_problems(pipeline, max_level, readers),
        *(_rooted(problem, pipeline) for problem in architecture_problems(resolved)),
    ]


def _rooted(problem: str, pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> str:
    """The problem of a resolved architecture, with the path that its field has in the config."""
    field = re.split(r"[. ]", problem, maxsplit=1)[0]
    if field in ("box_predictor", "anchor_generator") and pipeline.model.ssd.HasField(field):
        return f"model.ssd.{problem}"
    if pipeline.model.WhichOneof("architecture_oneof"):
        return f"model.architecture.{problem}"
    if field in ("depth_multiplier", "min_depth"):
        return f"model.ssd.feature_extractor.{problem}"
    return f"model.ssd.{problem}"


def architecture(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
) -> architecture_pb2.Architecture:
    """What the config builds.

    That is `model.architecture` or the named one, with the box predictor and the anchors of
    `model.ssd` where those are set; else what `model.ssd` describes.
    """
    model = pipeline.model
    resolved = architecture_pb2.Architecture()
    match model.WhichOneof("architecture_oneof"):
        case "architecture":
            resolved.CopyFrom(model.architecture)
        case "architecture_name":
            resolved.CopyFrom(load_architecture(model.architecture_name))
        case _:
            resolved.CopyFrom(_from_extractor(model.ssd.feature_extractor))
    if model.ssd.HasField("box_predictor"):
        resolved.box_predictor.CopyFrom(model.ssd.box_predictor)
    if model.ssd.HasField("anchor_generator"):
        resolved.anchor_generator.CopyFrom(model.ssd.anchor_generator)
    return resolved


def _from_extractor(extractor: ssd_pb2.SsdFeatureExtractor) -> architecture_pb2.Architecture:
    if extractor.type not in _FEATURE_EXTRACTORS:
        raise ConfigError(
            f'model.ssd.feature_extractor.type is "{extractor.type}"; '
            f"{nearest(extractor.type, _FEATURE_EXTRACTORS)} is supported; or give "
            "model.architecture_name"
        )
    published = load_architecture(_FEATURE_EXTRACTORS[extractor.type])
    return architecture_pb2.Architecture(
        name=extractor.type,
        depth_multiplier=extractor.depth_multiplier,
        min_depth=extractor.min_depth,
        backbone=published.backbone,
        feature_pyramid=published.feature_pyramid,
    )


def load_architecture(name_or_path: str) -> architecture_pb2.Architecture:
    """A published architecture by its name, or the one in a text-proto file; checked."""
    names = architecture_names()
    path = Path(name_or_path)
    if name_or_path in names:
        path = _architectures() / f"{name_or_path}.textproto"
    elif not path.suffix and not path.is_file():
        raise ConfigError(
            f'no architecture "{name_or_path}"; {nearest(name_or_path, names)}, or the path of a '
            ".textproto file"
        )
    loaded = text_proto.read(path, architecture_pb2.Architecture)
    if problems := architecture_problems(loaded):
        raise ConfigError(f"{path}: {'; '.join(problems)}")
    return loaded


def architecture_names() -> list[str]:
    """The published architectures, sorted."""
    return sorted(path.stem for path in _architectures().glob("*.textproto"))


def _architectures() -> Path:
    return Path(str(importlib.resources.files("mnasdet.configs"))) / "architectures"


def hyperparams(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> Hyperparams | None:
    """Those of backbone and feature pyramid where the config overrides the published ones.

    An extractor of the OD API with hyper-parameters of its own keeps them, as it does there.
    """
    extractor = pipeline.model.ssd.feature_extractor
    overridden = extractor.override_base_feature_extractor_hyperparams
    if extractor.type in _FEATURE_EXTRACTORS or not overridden:
        return None
    return from_proto(extractor.conv_hyperparams)

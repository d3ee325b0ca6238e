"""The files beside checkpoints that say what they are checkpoints of.

A run that goes on, an evaluation and an export compare them with what they are asked for: weights
of another network or of other classes load without an error and give plausible wrong boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from absl import logging
from google.protobuf import text_format

from mnasdet import config, files, message_differences, text_proto
from mnasdet.data import label_map as label_maps
from mnasdet.errors import CheckpointError, ConfigError
from mnasdet.protos import architecture_pb2, pipeline_pb2

ARCHITECTURE_FILE = "architecture.textproto"
CONFIG_FILE = "pipeline.config"
LABEL_MAP_FILE = "label_map.pbtxt"

# Fields that change no weight.
_NAMES = ("name", "source")


def write(
    folder: Path,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    architecture: architecture_pb2.Architecture,
    labels: Mapping[int, str],
) -> None:
    """Writes the three files of a training."""
    used = pipeline_pb2.TrainEvalPipelineConfig()
    used.CopyFrom(pipeline)
    used.ClearField("search_config")  # It has no part in what was trained.
    files.write(folder / CONFIG_FILE, config.to_text(used))
    for name, text in (
        (ARCHITECTURE_FILE, text_format.MessageToString(architecture)),
        (LABEL_MAP_FILE, label_maps.to_text(labels)),
    ):
        files.write(folder / name, text_proto.sealed(text))


def check_same(
    folder: Path,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    architecture: architecture_pb2.Architecture,
    labels: Mapping[int, str],
) -> None:
    """Checks that a training may go on from the checkpoints of a folder.

    The number of steps, learning rate, augmentation and data may have changed; files that an older
    version did not write are not compared.

    Raises:
      CheckpointError: network, image size, classes, rounding or optimizer differ.
    """
    differences = [*_differing_labels(folder, labels)]
    if (held := _architecture(folder)) is not None:
        differences += message_differences.lines(
            _unnamed(held), _unnamed(architecture), "architecture"
        )
    if (trained := _config(folder)) is not None:
        differences += message_differences.lines(_decisive(trained), _decisive(pipeline))
    if differences:
        more = f", and {len(differences) - 1} more" if len(differences) > 1 else ""
        raise CheckpointError(
            f"{folder} holds checkpoints of another training: {differences[0]}{more}; choose "
            f"another --model_dir, or start from them with --fine_tune_checkpoint={folder}"
        )


def check_usable(
    folder: Path, pipeline: pipeline_pb2.TrainEvalPipelineConfig, labels: Mapping[int, str]
) -> None:
    """Checks that a config may evaluate or export the checkpoints of a folder, and warns where it
    has another image size than they were trained at.

    Raises:
      CheckpointError: they were trained for other classes.
    """
    if differences := list(_differing_labels(folder, labels)):
        raise CheckpointError(
            f"{folder} was trained for other classes: {differences[0]}; use its own label map, "
            f"{folder / LABEL_MAP_FILE}"
        )
    trained = _config(folder)
    if trained is not None and config.image_size(trained) != config.image_size(pipeline):
        sizes = ["x".join(map(str, config.image_size(one))) for one in (trained, pipeline)]
        logging.warning("%s was trained at %s; the config has %s", folder, *sizes)


def _differing_labels(folder: Path, labels: Mapping[int, str]) -> Iterator[str]:
    path = folder / LABEL_MAP_FILE
    if not path.exists():
        return
    held = label_maps.load(path)
    for class_id in sorted(held.keys() | labels.keys()):
        there, here = (names.get(class_id, "no class") for names in (held, labels))
        if there != here:
            yield f"class {class_id} is {there!r} in the folder, {here!r} in the label map"


def _architecture(folder: Path) -> architecture_pb2.Architecture | None:
    path = folder / ARCHITECTURE_FILE
    return config.load_architecture(str(path)) if path.exists() else None


def _config(folder: Path) -> pipeline_pb2.TrainEvalPipelineConfig | None:
    """The config that trained, where the folder has one that can be read."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return None
    try:
        text = text_proto.read_text(path, may_be_changed=True)
        return text_proto.parse(text, pipeline_pb2.TrainEvalPipelineConfig, str(path))
    except ConfigError as error:
        logging.warning("not compared with the config that trained: %s", error)
        return None


def _unnamed(architecture: architecture_pb2.Architecture) -> architecture_pb2.Architecture:
    copy = architecture_pb2.Architecture()
    copy.CopyFrom(architecture)
    for name in _NAMES:
        copy.ClearField(name)
    return copy


def _decisive(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the fields of a config that decide, beside the architecture, which variables a
    training has and what its outputs mean."""
    kept = pipeline_pb2.TrainEvalPipelineConfig()
    ssd = kept.model.ssd
    ssd.num_classes = pipeline.model.ssd.num_classes
    ssd.image_resizer.CopyFrom(pipeline.model.ssd.image_resizer)
    ssd.box_coder.CopyFrom(pipeline.model.ssd.box_coder)
    optimizer = pipeline.train_config.optimizer.WhichOneof("optimizer")
    if optimizer:
        getattr(kept.train_config.optimizer, optimizer).SetInParent()
    if pipeline.HasField("graph_rewriter"):
        kept.graph_rewriter.SetInParent()
    kept.eval_config.use_moving_averages = pipeline.eval_config.use_moving_averages
    return kept

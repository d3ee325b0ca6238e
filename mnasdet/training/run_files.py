"""The files beside checkpoints that say what they are checkpoints of.

A run that goes on, an evaluation and an export compare them with what they are asked for: weights
of another network or of other classes load without an error and give plausible wrong boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from absl import logging
from google.protobuf import text_format
from google.protobuf.message import Message

from mnasdet import config, files, message_differences, text_proto
from mnasdet.blueprint import Blueprint
from mnasdet.data import label_map as label_maps
from mnasdet.errors import CheckpointError, ConfigError
from mnasdet.protos import architecture_pb2, pipeline_pb2

ARCHITECTURE_FILE = "architecture.textproto"
CONFIG_FILE = "pipeline.config"
LABEL_MAP_FILE = "label_map.pbtxt"

# Fields of an architecture that change no weight. The image size is compared by itself: an
# architecture or a config may say it.
_NO_LAYERS = ("name", "source", "published_at", "input")

# Fields of the model's settings that decide what its outputs mean.
_DECISIVE = ("num_classes", "image_resizer", "box_coder")

# Fields of image resizers that say how large the input is.
_SIZES = {"height", "width", "min_dimension", "max_dimension"}


def write(
    folder: Path,
    blueprint: Blueprint,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    labels: Mapping[int, str] | None,
) -> None:
    """Writes the three files of a training; no label map where the names are not known."""
    used = pipeline_pb2.TrainEvalPipelineConfig()
    used.CopyFrom(pipeline)
    used.ClearField("search_config")  # It has no part in what was trained.
    files.write(folder / CONFIG_FILE, config.to_text(used))
    texts = {ARCHITECTURE_FILE: text_format.MessageToString(blueprint.architecture)}
    if labels is not None:
        texts[LABEL_MAP_FILE] = label_maps.to_text(labels)
    for name, text in texts.items():
        files.write(folder / name, text_proto.sealed(text))


def check_same(
    folder: Path,
    blueprint: Blueprint,
    pipeline: pipeline_pb2.TrainEvalPipelineConfig,
    labels: Mapping[int, str],
) -> None:
    """Checks that a training may go on from the checkpoints of a folder.

    The number of steps, learning rate, augmentation and data may have changed; files that an older
    version did not write are not compared.

    Raises:
      CheckpointError: network, image size, classes, rounding or optimizer differ.
    """
    differences = [*_differing_labels(folder, labels)]
    held = _architecture(folder)
    if held is not None:
        differences += message_differences.lines(
            _layers(held), _layers(blueprint.architecture), "architecture"
        )
    if (trained := _config(folder)) is not None:
        differences += message_differences.lines(
            _decisive(config.resolve(trained, held), trained), _decisive(blueprint, pipeline)
        )
    if differences:
        raise CheckpointError(
            f"{folder} holds checkpoints of another training: {_told(differences)}; choose "
            f"another --model_dir, or start from them with --fine_tune_checkpoint={folder}"
        )


def check_usable(folder: Path, blueprint: Blueprint, labels: Mapping[int, str]) -> None:
    """Checks that a config may evaluate or export the checkpoints of a folder.

    Warns where it has another image size than they were trained at.

    Raises:
      CheckpointError: they were trained for other classes.
    """
    if differences := list(_differing_labels(folder, labels)):
        raise CheckpointError(
            f"{folder} was trained for other classes: {differences[0]}; use its own label map, "
            f"{folder / LABEL_MAP_FILE}"
        )
    trained = _config(folder)
    if trained is None:
        return
    size = config.resolve(trained, _architecture(folder)).image_size
    # A warning and no error: the layers fit any size, and testing at another one is common.
    if size != blueprint.image_size:
        sizes = ["x".join(map(str, one)) for one in (size, blueprint.image_size)]
        logging.warning("%s was trained at %s; the config has %s", folder, *sizes)


def warn_of_other_layers(folder: Path, blueprint: Blueprint) -> None:
    """Warns where a config has another network than the checkpoints of a folder."""
    held = _architecture(folder)
    if held is None:
        return
    layers = _layers(held), _layers(blueprint.architecture)
    if differences := list(message_differences.lines(*layers, "architecture")):
        logging.warning(
            "%s holds another network than the config's, and that one is used: %s",
            folder,
            _told(differences),
        )


def _told(differences: Sequence[str]) -> str:
    """Returns the first difference, and how many more there are."""
    more = len(differences) - 1
    return differences[0] + (f", and {more} more" if more else "")


def _differing_labels(folder: Path, labels: Mapping[int, str]) -> Iterator[str]:
    path = folder / LABEL_MAP_FILE
    if path.exists():
        yield from label_maps.differences(label_maps.load(path), labels, "the folder")


def _architecture(folder: Path) -> architecture_pb2.Architecture | None:
    path = folder / ARCHITECTURE_FILE
    return config.load_trained_architecture(path) if path.exists() else None


def _config(folder: Path) -> pipeline_pb2.TrainEvalPipelineConfig | None:
    """Returns the config that trained, where the folder has one that can be read."""
    path = folder / CONFIG_FILE
    if not path.exists():
        return None
    try:
        text = text_proto.read_text(path, may_be_changed=True)
        return text_proto.parse(text, pipeline_pb2.TrainEvalPipelineConfig, str(path))
    except ConfigError as error:
        logging.warning("not compared with the config that trained: %s", error)
        return None


def _layers(architecture: architecture_pb2.Architecture) -> architecture_pb2.Architecture:
    """Returns the fields of an architecture that decide its variables."""
    copy = architecture_pb2.Architecture()
    copy.CopyFrom(architecture)
    for name in _NO_LAYERS:
        copy.ClearField(name)
    return copy


def _decisive(
    blueprint: Blueprint, pipeline: pipeline_pb2.TrainEvalPipelineConfig
) -> pipeline_pb2.TrainEvalPipelineConfig:
    """Returns the fields of a config that decide what a training is, beside the layers.

    They decide which variables it has and what its outputs mean.
    """
    kept = pipeline_pb2.TrainEvalPipelineConfig()
    settings = getattr(kept.model, blueprint.kind)
    for name in _DECISIVE:
        if name in settings.DESCRIPTOR.fields_by_name and blueprint.settings.HasField(name):
            field = getattr(blueprint.settings, name)
            if isinstance(field, Message):
                getattr(settings, name).CopyFrom(field)
            else:
                setattr(settings, name, field)
    # An architecture may decide the size in the resizer's place: it is compared once, as it is.
    resizer = settings.image_resizer
    if kind := resizer.WhichOneof("image_resizer_oneof"):
        for name in _SIZES:
            if name in getattr(resizer, kind).DESCRIPTOR.fields_by_name:
                getattr(resizer, kind).ClearField(name)
    kept.model.architecture.input.height, kept.model.architecture.input.width = blueprint.image_size
    optimizer = pipeline.train_config.optimizer.WhichOneof("optimizer")
    if optimizer:
        getattr(kept.train_config.optimizer, optimizer).SetInParent()
    if blueprint.quantized:
        kept.graph_rewriter.SetInParent()
    return kept

"""Recognises checkpoints and models that this library did not write."""

from __future__ import annotations

import os
import re
from pathlib import Path

import tensorflow as tf

from mnasdet.training.literal_paths import literal
from mnasdet.training.warm_start import tf_checkpoint

# The keys of our own checkpoints: training/checkpoints.py.
_OWN = re.compile(r"^(weights|averages)/")

# Parts of variables' names, and whose they are; the first pattern that is found counts.
_CHECKPOINTS = (
    (
        re.compile(r"layer_with_weights-\d+/_(conv|norm|shortcut)\d?/"),
        "a checkpoint of tf-models-official",
    ),
    # The object graph that the TF2 OD API saves, in training and in its zoo.
    (re.compile(r"^model/_"), "a checkpoint of the TF Object Detection API (TF2)"),
    (
        re.compile(r"^(feature_extractor|backbone)/.*/\.ATTRIBUTES/"),
        "a backbone's checkpoint of the TF Object Detection API (TF2)",
    ),
    (re.compile(r"(^|/)layer(_with_weights)?-\d+/"), "a checkpoint of a Keras model"),
    # The scopes of the TF1 OD API, and of slim's classifiers that it starts from.
    (
        re.compile(r"^(FeatureExtractor|FirstStage|SecondStage)"),
        "a checkpoint of the TF Object Detection API (TF1)",
    ),
    (
        re.compile(r"^(Mobilenet|Inception|resnet_v\d|mobilenet)"),
        "a classifier's checkpoint of slim (TF1)",
    ),
)

_OURS = "name a checkpoint of mnasdet, a folder that mnasdet-train wrote or a prefix in it"

# The kinds below whose weights a training can start from.
_HAVE_WEIGHTS = re.compile("checkpoint|classifier's|Keras file|safetensors|TF2 zoo")
_IMPORTED = (
    "; fine_tune_checkpoint takes the weights of other programs to start from, and "
    "mnasdet-import-checkpoint makes a checkpoint of them"
)


def describe(path: str | os.PathLike) -> str:
    """Returns what a checkpoint or model of another program is, and what is needed in its place.

    Args:
      path: a checkpoint's prefix, one of its files, a folder, or a model's file.

    Returns:
      A line without the path; empty for a checkpoint of mnasdet, and for what is not known or not
      there at all.
    """
    found = kind(path)
    if not found:
        return ""
    return f"is {found}; {_OURS}{_IMPORTED if _HAVE_WEIGHTS.search(found) else ''}"


def kind(path: str | os.PathLike) -> str:
    """Returns what a checkpoint or model of another program is, "a SavedModel, ..." or so.

    Args:
      path: as `describe` takes it.

    Returns:
      Empty for a checkpoint of mnasdet, and for what is not known or not there at all.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return "a SavedModel, a network for inference"
        if model := _model_folder_kind(path):
            return model
    if prefix := tf_checkpoint.prefix_of(str(path)):
        return _checkpoint_kind(prefix)
    return _file_kind(path) if path.is_file() else ""


def _model_folder_kind(path: Path) -> str:
    """Names what a model of the OD API's zoo, unpacked, has in its folder."""
    # The archives of TF1 have their checkpoint beside the exported model.
    beside = any(path.glob("*.index"))
    if (path / "saved_model" / "saved_model.pb").is_file() and not beside:
        if (path / "checkpoint").is_dir():
            return "a model of the TF Object Detection API's TF2 zoo"
        return "an exported model of the TF Object Detection API"
    return ""


def _checkpoint_kind(prefix: str) -> str:
    try:
        names = [name for name, _ in tf.train.list_variables(literal(prefix))]
    except (tf.errors.OpError, ValueError, RuntimeError):
        return ""  # Damaged, which its loader says.
    if any(_OWN.match(name) for name in names):
        return ""
    for pattern, kind in _CHECKPOINTS:
        if any(pattern.search(name) for name in names):
            return kind
    return "a checkpoint of another TensorFlow program" if names else ""


def _file_kind(path: Path) -> str:
    """Names a model's file, by its first bytes where those tell."""
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "a Keras file (HDF5)"
    if start[4:8] == b"TFL3":
        return "a TFLite file, a network for inference"
    if start.startswith(b"PK\x03\x04"):
        return "a zip file" if path.suffix != ".keras" else "a Keras file"
    if start.startswith(b"\x1f\x8b"):
        return "a packed archive (gzip), which has to be unpacked first"
    if path.suffix == ".pb":
        return "a frozen graph, a network for inference"
    if path.suffix == ".safetensors":
        return "a safetensors file"
    return ""

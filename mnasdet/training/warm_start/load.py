"""Starts a model from the weights in a file, of this library or of another program."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

import tf_keras

from mnasdet.errors import CheckpointError, nearest
from mnasdet.protos import train_pb2
from mnasdet.training import checkpoints, foreign_checkpoints
from mnasdet.training.warm_start import formats, name_map, tf_checkpoint
from mnasdet.training.warm_start.report import Report
from mnasdet.training.warm_start.source import Source
from mnasdet.training.warm_start.transfer import target, transfer

# Shares: a single variable, and every one.
_ANY, _ALL = 1e-9, 1.0

# Words of `foreign_checkpoints.kind`, and those of the sources of name maps for such a file.
_PROGRAMS = {
    "slim": "slim",
    "Object Detection API (TF1)": r"Object Detection API \(TF1\)",
    "Object Detection API": r"Object Detection API \(TF2\)",
    "tf-models-official": "tf-models-official",
    "Keras": r"keras\.applications$",
    "safetensors": "torchvision|timm",
}

# The parts that each fine_tune_checkpoint_type takes over; none: all that fit.
_PARTS: dict[str, tuple[str, ...]] = {
    "": (),
    "fine_tune": (),
    "full": (),
    "detection": ("backbone", "feature_pyramid"),
    "classification": ("backbone",),
}


def from_config(model: tf_keras.Model, train_config: train_pb2.TrainConfig) -> Report | None:
    """Loads what `fine_tune_checkpoint` has for the parts that its type names.

    Returns:
      What was loaded and what not; None where the config names no weights to start from.
    """
    if not train_config.fine_tune_checkpoint:
        return None
    has_share = train_config.HasField("min_matched_share")
    return load(
        model,
        train_config.fine_tune_checkpoint,
        parts=_parts_of(train_config),
        min_matched_share=train_config.min_matched_share if has_share else None,
    )


def _parts_of(train_config: train_pb2.TrainConfig) -> tuple[str, ...]:
    older = "detection" if train_config.from_detection_checkpoint else ""
    kind = train_config.fine_tune_checkpoint_type or older
    if kind == "detection" and train_config.load_all_detection_checkpoint_vars:
        return ()
    return _PARTS[kind]


def load(
    model: tf_keras.Model,
    path: str | Path,
    *,
    parts: Collection[str] = (),
    min_matched_share: float | None = None,
) -> Report:
    """Loads what a file has for the variables of a model, and logs what it has not.

    Args:
      path: a checkpoint of mnasdet or its folder, or a file of another program.
      parts: of the model that are loaded, such as "backbone"; none: all that the file has.
      min_matched_share: of the variables of those parts; what a model can do without does not
        count. None: all of them, or of a checkpoint of mnasdet at least one.

    Raises:
      CheckpointError: the file cannot be read, is of no known source, or has too little. The model
        is as it was.
    """
    if is_own(path):
        share = _ANY if min_matched_share is None else min_matched_share
        report = _load_own(model, path, parts, share)
    else:
        share = _ALL if min_matched_share is None else min_matched_share
        report = _load_foreign(model, formats.open_source(path), parts, share)
    report.log()
    return report


def is_own(path: str | Path) -> bool:
    """Tells whether a path names a checkpoint of mnasdet, or nothing that is there."""
    if os.path.isfile(path) and not str(path).endswith(".index"):
        return False
    return not foreign_checkpoints.describe(path)


def check_file(path: str | Path) -> None:
    """Checks what needs no model: that a file is there, can be read and is of a known source.

    Raises:
      CheckpointError: it is not.
    """
    if is_own(path):
        checkpoints.find(path)
    else:
        recognized(formats.open_source(path))


def identifying_file(path: str | Path) -> str:
    """Returns the file whose content tells the weights of a path from others.

    Raises:
      CheckpointError: there is none.
    """
    if is_own(path):
        # The index has a checksum of every tensor, and is small beside the data.
        return f"{checkpoints.find(path)}.index"
    index = f"{tf_checkpoint.prefix_of(str(path))}.index"
    return index if os.path.isfile(index) else str(path)


def recognized(source: Source) -> name_map.NameMap:
    """Returns the map of a file's source.

    Raises:
      CheckpointError: none is for it.
    """
    if names := name_map.recognized(source.shapes):
        return names
    first = next(iter(source.shapes), "")
    kind = foreign_checkpoints.kind(source.path) or source.format
    raise CheckpointError(
        f'{source.path}: is {kind} with variables such as "{first}", which are of no network that '
        f"is known; {nearest(first, _sources(kind))} is allowed"
    )


def _sources(kind: str) -> list[str]:
    """Returns the sources that a kind of file may be of; all of them would be a very long line."""
    sources = list(dict.fromkeys(one.source for one in name_map.all_maps()))
    wanted = next((theirs for words, theirs in _PROGRAMS.items() if words in kind), "")
    return [source for source in sources if re.search(wanted, source)]


def _load_own(
    model: tf_keras.Model, path: str | Path, parts: Collection[str], share: float
) -> Report:
    fitting = checkpoints.Fitting(model, path, parts)
    fit = fitting.fit
    report = Report(
        str(path),
        "a checkpoint of mnasdet",
        _shown(parts),
        list(fit.fitting),
        [line.split()[0] for line in fit.missing],
        fit.misshapen,
    )
    report.check(share)
    fitting.load()
    return report


def _load_foreign(
    model: tf_keras.Model, source: Source, parts: Collection[str], share: float
) -> Report:
    names = recognized(source)
    variables = checkpoints.variables_by_name(model)
    found = transfer(target(model), source, names, parts)
    every = [*found.values, *found.unmatched, *found.misshapen]
    report = Report(
        source.path,
        names.source,
        _shown(parts or dict.fromkeys(name.partition("/")[0] for name in every)),
        list(found.values),
        found.unmatched,
        list(found.misshapen.values()),
        len(found.optional),
        found.differences,
        found.unused,
    )
    # It raises before anything is assigned: a model is never half loaded.
    report.check(share)
    for name, value in found.values.items():
        variables[name].assign(value)
    return report


def _shown(parts: Iterable[str]) -> str:
    return " and ".join(part.replace("_", " ") for part in parts) or "model"

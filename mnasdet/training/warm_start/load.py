"""Starts a model from the weights in a file, of this library or of another program."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

import tf_keras

from mnasdet.errors import CheckpointError, nearest
from mnasdet.training import checkpoints, foreign_checkpoints
from mnasdet.training.warm_start import formats, name_map, tf_checkpoint
from mnasdet.training.warm_start.report import Report
from mnasdet.training.warm_start.source import Source
from mnasdet.training.warm_start.transfer import target, transfer

# Shares: a single variable, and every one.
_ANY, _ALL = 1e-9, 1.0


def load(
    model: tf_keras.Model,
    path: str | os.PathLike,
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


def is_own(path: str | os.PathLike) -> bool:
    """Tells whether a path names a checkpoint of mnasdet, or nothing that is there."""
    if os.path.isfile(path) and not str(path).endswith(".index"):
        return False
    return not foreign_checkpoints.describe(path)


def check_file(path: str | os.PathLike) -> None:
    """Checks what needs no model: that a file is there, can be read and is of a known source.

    Raises:
      CheckpointError: it is not.
    """
    if is_own(path):
        checkpoints.find(path)
    else:
        recognized(formats.open_source(path))


def identifying_file(path: str | os.PathLike) -> str:
    """Returns the file whose content tells the weights of a path from others.

    Raises:
      CheckpointError: there is none.
    """
    if is_own(path):
        return f"{checkpoints.find(path)}.index"
    prefix = tf_checkpoint.prefix_of(str(path))
    return f"{prefix}.index" if prefix else str(path)


def recognized(source: Source) -> name_map.NameMap:
    """Returns the map of a file's source.

    Raises:
      CheckpointError: none is for it.
    """
    if names := name_map.recognized(source.shapes):
        return names
    first = next(iter(source.shapes), "")
    known = nearest(first, [one.source for one in name_map.all_maps()])
    raise CheckpointError(
        f'{source.path}: {source.format} with variables such as "{first}", which are of no network '
        f"that is known; {known} is allowed"
    )


def _load_own(
    model: tf_keras.Model, path: str | os.PathLike, parts: Collection[str], share: float
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
    )
    report.check(share)
    for name, value in found.values.items():
        variables[name].assign(value)
    return report


def _shown(parts: Iterable[str]) -> str:
    return " and ".join(part.replace("_", " ") for part in parts) or "model"

"""Writes a model as a SavedModel, in the layout of the OD API's exporter."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata as packages
from pathlib import Path
from typing import Any

import tensorflow as tf

import mnasdet
from mnasdet import files
from mnasdet.saved_model.server import INPUT, INPUT_TYPES, Server

# The folder of the model itself within that of the export, as the OD API names it.
MODEL_FOLDER = "saved_model"
DESCRIPTION_FILE = "export.json"

# All that TensorFlow writes into the folder of a model.
_MODEL_FILES = ("saved_model.pb", "variables", "assets", "assets.extra", "fingerprint.pb")

# The signature that TensorFlow Serving and others take unless they are told another.
SERVING = "serving_default"

_PACKAGES = ("tensorflow", "tf-keras")


def export(
    server: Server,
    output_dir: str | os.PathLike,
    *,
    input_type: str,
    others: Mapping[str, str],
    described: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes a folder with the model, its description and other files; it appears whole.

    The model has a signature for every input type, by its name, and SERVING for `input_type`.

    Args:
      others: contents of the other files, by name.
      described: what the description says of this kind of model.

    Returns:
      The description: signatures with their inputs and outputs, sizes in bytes, versions.

    Raises:
      UserError: there is something else than an export in the folder.
    """
    names = {MODEL_FOLDER, DESCRIPTION_FILE, *others}
    with files.replacing_folder(output_dir, names) as folder:
        signatures = _save(server, folder / MODEL_FOLDER, input_type)
        return _describe(folder, input_type, signatures, others, described)


def export_beside(
    server: Server,
    folder: str | os.PathLike,
    *,
    input_type: str,
    others: Mapping[str, str],
    described: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes the same as `export` into a folder with other files, such as that of a training.

    The model itself appears whole, in place of an older one.
    """
    folder = Path(folder)
    with files.replacing_folder(folder / MODEL_FOLDER, _MODEL_FILES) as place:
        signatures = _save(server, place, input_type)
    return _describe(folder, input_type, signatures, others, described)


def _save(server: Server, place: Path, input_type: str) -> dict[str, Any]:
    """Writes the model and returns its signatures."""
    functions = {name: server.function(name).get_concrete_function() for name in INPUT_TYPES}
    tf.saved_model.save(
        server,
        str(place),
        {SERVING: functions[input_type], **functions},
        # Without them, loading warns of every layer that has a gradient of its own.
        tf.saved_model.SaveOptions(experimental_custom_gradients=True),
    )
    return {name: _signature(one) for name, one in functions.items()}


def _describe(
    folder: Path,
    input_type: str,
    signatures: Mapping[str, Any],
    others: Mapping[str, str],
    described: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes the description and the other files beside the model; returns the description."""
    description = {
        "saved_model": MODEL_FOLDER,
        "input_type": input_type,
        **described,
        "signatures": signatures,
        "bytes": dict(_sizes(folder)),
        "versions": {"mnasdet": mnasdet.__version__}
        | {package: packages.version(package) for package in _PACKAGES},
    }
    for name, content in others.items():
        files.write(folder / name, content)
    files.write_json(folder / DESCRIPTION_FILE, description)
    return description


def _signature(function: Any) -> dict[str, Any]:
    ((spec,), _) = function.structured_input_signature
    return {
        "input": {"name": INPUT, **_tensor(spec)},
        "outputs": {
            name: _tensor(tensor) for name, tensor in sorted(function.structured_outputs.items())
        },
    }


def _tensor(spec: Any) -> dict[str, Any]:
    return {"shape": spec.shape.as_list(), "dtype": spec.dtype.name}


def _sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """Yields the path of every file of the model, in the folder, with its bytes."""
    found: Iterable[Path] = sorted((folder / MODEL_FOLDER).rglob("*"))
    for path in found:
        if path.is_file():
            yield str(path.relative_to(folder)), path.stat().st_size

"""Keras' files of weights and models, read without building a model.

Three layouts in HDF5, of tf_keras and Keras 2 and 3, alone or in a .keras file, which is a zip:

- the older one (.h5): a group a layer, whose attributes list the names of its variables;
- `.weights.h5` of Keras 3: groups by the kind of layer and a number, with numbered variables and
  the layer's name beside them;
- `.weights.h5` of tf_keras: the same without the names. A .keras file has them in its config.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mnasdet.errors import CheckpointError
from mnasdet.training.warm_start.source import Source

FORMAT = "a Keras file"

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZIP = b"PK\x03\x04"

# The members of a .keras file.
_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"

# The group of a layer's variables, whose names there are their places in the layer, by its kind.
_VARIABLES = "vars"
_BATCH_NORM = ("gamma", "beta", "moving_mean", "moving_variance")
_CONVOLUTION = ("kernel", "bias")

# The group of a model's layers, and its older name.
_LAYERS, _OLDER_LAYERS = "layers", "_layer_checkpoint_dependencies"


def matches(start: bytes) -> bool:
    """Tells by its first bytes whether a file may have one of these formats."""
    return start.startswith((_HDF5, _ZIP))


def open_source(path: str) -> Source:
    """Opens a file. Its variables are named LAYER/kernel and so on.

    Where a file has no names of layers, LAYER is its path there: layers/conv2d_3.

    Raises:
      CheckpointError: it is damaged, or has no weights of Keras in it.
    """
    import h5py

    try:
        names: Mapping[str, str] = {}
        file: Any = path
        with open(path, "rb") as opened:
            is_zip = opened.read(4) == _ZIP
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                if _WEIGHTS not in archive.namelist():
                    raise CheckpointError(f"{path}: is a zip file without Keras' {_WEIGHTS} in it")
                file = io.BytesIO(archive.read(_WEIGHTS))
                if _CONFIG in archive.namelist():
                    names = _layer_names(json.loads(archive.read(_CONFIG)))
        root = h5py.File(file, "r")
        places = _places(root, names)
        shapes = {name: root[place].shape for name, place in places.items()}
    # h5py and zipfile have many errors, and any of Python's for bytes that make no sense.
    except (OSError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{path}: is a damaged Keras file: {reason}") from None
    if not places:
        raise CheckpointError(f"{path}: is an HDF5 file without weights of Keras in it")
    return Source(path, FORMAT, shapes, lambda name: np.asarray(root[places[name]]))


def _places(root: Any, names: Mapping[str, str]) -> dict[str, str]:
    """Returns the paths of all variables in an HDF5 file, by their names."""
    # A whole model has its weights in a group of their own, beside those of the optimizer.
    group = root.get("model_weights", root)
    if _texts(group, "layer_names"):
        return dict(_named_places(group))
    return dict(_numbered_places(root, names))


def _named_places(root: Any) -> Iterator[tuple[str, str]]:
    """Yields the names and the paths of variables in the older layout."""
    for layer in _texts(root, "layer_names"):
        variables = _texts(root[layer], "weight_names")
        # A layer that is a model has all its layers' variables, and their names have the layers in
        # them. Those of one layer have the name that it had when it was made, which may differ.
        nested = len({variable.rpartition("/")[0] for variable in variables}) > 1
        for variable in variables:
            owner = variable.rpartition("/")[0] if nested else layer
            last = variable.rpartition("/")[2].partition(":")[0]
            yield f"{owner}/{last}", f"{root[layer].name}/{variable}"


def _numbered_places(root: Any, names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields the names and the paths of variables that have numbers for names.

    Args:
      names: of layers, by their paths, where the groups have none.
    """
    import h5py

    found: dict[str, list[str]] = {}

    def visit(path: str, one: Any) -> None:
        scope, _, number = path.rpartition("/")
        layer, _, last = scope.rpartition("/")
        if isinstance(one, h5py.Dataset) and last == _VARIABLES and number.isdigit():
            found.setdefault(layer, []).append(number)

    root.visititems(visit)
    for layer, numbers in found.items():
        path = layer.replace(_OLDER_LAYERS, _LAYERS)
        name = root[f"{layer}/{_VARIABLES}"].attrs.get("name") or names.get(path) or path
        is_norm = path.rpartition("/")[2].startswith("batch_normalization")
        variables = _BATCH_NORM if is_norm else _CONVOLUTION
        # Others are in no network here, as a batch normalisation without a factor.
        if len(numbers) == len(variables) or numbers == ["0"]:
            for number in numbers:
                place = f"{layer}/{_VARIABLES}/{number}"
                yield f"{name}/{variables[int(number)]}", place


def _layer_names(config: Mapping[str, Any], scope: str = "") -> dict[str, str]:
    """Returns the names of layers in a model's config, by their paths in its weights."""
    names, used = {}, dict[str, int]()
    for layer in config.get("config", {}).get("layers", []):
        kind = _snake_case(layer["class_name"].rpartition(">")[2])
        used[kind] = used.get(kind, -1) + 1
        path = f"{scope}layers/{kind}" + (f"_{used[kind]}" if used[kind] else "")
        names[path] = layer["config"]["name"]
        names |= _layer_names(layer, f"{path}/")
    return names


def _snake_case(name: str) -> str:
    """Returns a class's name as Keras writes it into paths: Conv2D is conv2d."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _texts(group: Any, name: str) -> list[str]:
    """Returns a list of texts among a group's attributes; empty if there is none.

    HDF5 takes no attribute above 64 kB: a longer list is in several, NAME0, NAME1 and so on.
    """
    pieces = [name] if name in group.attrs else []
    while f"{name}{len(pieces)}" in group.attrs:
        pieces.append(f"{name}{len(pieces)}")
    values = [value for piece in pieces for value in group.attrs[piece]]
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]

"""Finds out the format of a file of weights, by what is in it."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from mnasdet.errors import CheckpointError
from mnasdet.training import foreign_checkpoints
from mnasdet.training.warm_start import keras_file, safetensors_file, tf_checkpoint
from mnasdet.training.warm_start.source import Source

# For messages.
READABLE = (
    "a checkpoint of mnasdet or of TensorFlow, a .safetensors file or a Keras file (.h5, "
    ".weights.h5, .keras)"
)

_PICKLE = (
    "is a pickle of PyTorch, which could run any code when it is read; write it as safetensors "
    "first: python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('IN.pth', "
    "weights_only=True), 'OUT.safetensors')\""
)


def open_source(path: str | os.PathLike) -> Source:
    """Opens a file of weights of another program.

    Args:
      path: a file, or the prefix or the folder of a TensorFlow checkpoint.

    Raises:
      CheckpointError: it is not there, damaged, or of no format that is read.
    """
    path = str(path)
    if prefix := tf_checkpoint.prefix_of(path):
        return tf_checkpoint.open_source(prefix)
    if not os.path.isfile(path):
        missing = "has no checkpoint in it" if os.path.isdir(path) else "does not exist"
        found = foreign_checkpoints.kind(path)
        raise CheckpointError(f"{path}: {f'is {found}' if found else missing}; name {READABLE}")
    with open(path, "rb") as file:
        start = file.read(512)
    if safetensors_file.matches(start):
        return safetensors_file.open_source(path)
    if keras_file.matches(start) and not _is_pickle(path, start):
        return keras_file.open_source(path)
    raise CheckpointError(f"{path}: {_fault(path, start)}")


def _fault(path: str, start: bytes) -> str:
    """Returns why a file is of no format that is read."""
    if not start:
        return "is empty; was its download cut off?"
    if _is_pickle(path, start):
        return _PICKLE
    if start.lstrip()[:1] == b"<":
        return "is a page of the web (HTML or XML), not the file that it links to"
    if start.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself; run git lfs pull"
    if Path(path).suffix in (".safetensors", ".h5", ".keras"):
        return f"is damaged, or no {Path(path).suffix} file at all; name {READABLE}"
    if found := foreign_checkpoints.kind(path):
        return f"is {found}; name {READABLE}"
    return f"is of no format that is known; name {READABLE}"


def _is_pickle(path: str, start: bytes) -> bool:
    # PyTorch's older files are plain pickles, its newer ones zip files of them.
    if start[:1] == b"\x80":
        return True
    if not start.startswith(b"PK\x03\x04") or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("data.pkl") for name in archive.namelist())

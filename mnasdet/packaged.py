"""The pipeline configs that are installed with the package."""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path

from absl import logging

from mnasdet import text_files
from mnasdet.errors import ConfigError, nearest

# As the source tree and the documentation name them.
_FOLDER = "configs"
_SUFFIX = ".config"


def config_names() -> list[str]:
    """Returns the names by which `find_config` knows the configs: configs/NAME.config, sorted."""
    return sorted(f"{_FOLDER}/{path.name}" for path in _folder().glob(f"*{_SUFFIX}"))


def find_config(path: str | os.PathLike, folder: str | os.PathLike = "") -> Path:
    """Returns the file that a path names: that file, or else the packaged config of this name.

    Args:
      path: of a file; configs/quickstart.config, quickstart.config and quickstart also name a
        packaged config.
      folder: where a relative path starts; the working directory if left out.

    Raises:
      ConfigError: there is neither, and the path looks like the name of a packaged one.
    """
    path, there = Path(path), Path(folder, path)
    if there.exists() or path.is_absolute() or str(path.parent) not in (".", _FOLDER):
        return there
    name = f"{_FOLDER}/{path.name.removesuffix(_SUFFIX)}{_SUFFIX}"
    names = config_names()
    if name not in names:
        similar = text_files.similar_file(there) if there.parent.is_dir() else ""
        raise ConfigError(
            f"{path}: no such file{similar}; with mnasdet comes {nearest(name, names)}"
        )
    found = _folder() / Path(name).name
    logging.info("%s: no such file here; %s is used", path, found)
    return found


def _folder() -> Path:
    return Path(str(importlib.resources.files("mnasdet.configs")))

"""A folder that a command fills, in as many runs as that takes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mnasdet import config, files
from mnasdet.errors import UserError
from mnasdet.protos import pipeline_pb2

_SETTINGS_FILE = "run.json"
_CONFIG_FILE = "pipeline.config"

# The settings that decide the result, as JSON has them.
Settings = Mapping[str, Any]


@contextlib.contextmanager
def claimed(
    folder: Path, pipeline: pipeline_pb2.TrainEvalPipelineConfig, settings: Settings, resume: bool
) -> Iterator[None]:
    """Holds a folder for one run: no other process has it meanwhile.

    A new run writes run.json (the settings and a digest of the config) and pipeline.config. If an
    error ends it before anything else is there, it leaves the folder as it was: the user mends a
    flag and tries again.

    Args:
      settings: by the names of their flags.
      resume: whether to go on with the run that the folder holds, if it does.

    Raises:
      UserError: another process has the folder, or it holds a run and `resume` is not set, or
        another run, or something else.
    """
    with files.locked(folder):
        whole = {**settings, "config_sha256": _digest(pipeline)}
        is_new = _check(folder, whole, resume)
        if is_new:
            files.write_json(folder / _SETTINGS_FILE, whole)
        files.write(folder / _CONFIG_FILE, config.to_text(pipeline))
        try:
            yield
        except UserError:
            if is_new:
                _give_back(folder)
            raise


def _check(folder: Path, settings: Settings, resume: bool) -> bool:
    """Returns whether the run is a new one."""
    path = folder / _SETTINGS_FILE
    if not path.exists():
        if _content(folder):
            raise UserError(f"{folder} holds something else already; choose another --model_dir")
        return True
    if not resume:
        raise UserError(
            f"{folder} holds a run already; add --resume to go on with it, or choose another "
            "--model_dir"
        )
    remedy = "choose another --model_dir"
    held = files.read_json(path, "description of a run", remedy=remedy)
    different = [name for name in settings if held.get(name) != settings[name]]
    if different:
        name = different[0]
        raise UserError(
            f"{folder} holds another run, with {name} {held.get(name)} in place of "
            f"{settings[name]}; choose another --model_dir"
        )
    return False


def _give_back(folder: Path) -> None:
    if _content(folder) == {_SETTINGS_FILE, _CONFIG_FILE}:
        for name in (_CONFIG_FILE, _SETTINGS_FILE):
            (folder / name).unlink()


def _content(folder: Path) -> set[str]:
    """Returns the names in a folder, without the lock and what a killed process did not rename."""
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}


def _digest(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> str:
    """Returns a digest of what decides the result.

    The executor decides only where it is computed; and pipeline.config, with which the run may go
    on, has no password.
    """
    decisive = pipeline_pb2.TrainEvalPipelineConfig()
    decisive.CopyFrom(pipeline)
    config.remove_password(decisive)
    decisive.search_config.ClearField("executor")
    return hashlib.sha256(decisive.SerializeToString(deterministic=True)).hexdigest()

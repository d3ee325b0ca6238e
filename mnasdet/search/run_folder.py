"""A folder that a command fills, in as many runs as that takes."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from mnasdet import files
from mnasdet.errors import UserError
from mnasdet.protos import pipeline_pb2

_SETTINGS_FILE = "run.json"

# What decides the result, as JSON has it.
Settings = Mapping[str, Any]


@contextlib.contextmanager
def claimed(
    folder: Path, pipeline: pipeline_pb2.TrainEvalPipelineConfig, settings: Settings, resume: bool
) -> Iterator[None]:
    """Holds a folder for one run: no other process has it meanwhile.

    A new run writes run.json (the settings and a digest of the config) and pipeline.config.

    Args:
      settings: by the names of their flags.
      resume: whether to go on with the run that the folder holds, if it does.

    Raises:
      UserError: another process has the folder, or it holds a run and `resume` is not set, or
        another run, or something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is at work in {folder}") from None
        whole = {**settings, "config_sha256": _digest(pipeline)}
        if _check(folder, whole, resume):
            files.write(folder / _SETTINGS_FILE, json.dumps(whole, indent=2) + "\n")
        files.write(folder / "pipeline.config", text_format.MessageToString(pipeline))
        yield


def _check(folder: Path, settings: Settings, resume: bool) -> bool:
    """Whether the run is a new one."""
    path = folder / _SETTINGS_FILE
    if not path.exists():
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise UserError(f"{folder} holds something else already; choose another --model_dir")
        return True
    if not resume:
        raise UserError(
            f"{folder} holds a run already; add --resume to go on with it, or choose another "
            "--model_dir"
        )
    held = json.loads(path.read_text())
    different = [name for name in settings if held.get(name) != settings[name]]
    if different:
        name = different[0]
        raise UserError(
            f"{folder} holds another run, with {name} {held.get(name)} in place of "
            f"{settings[name]}; choose another --model_dir"
        )
    return False


def _digest(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> str:
    """The executor decides nothing but who computes the result."""
    decisive = pipeline_pb2.TrainEvalPipelineConfig()
    decisive.CopyFrom(pipeline)
    decisive.search_config.ClearField("executor")
    return hashlib.sha256(decisive.SerializeToString(deterministic=True)).hexdigest()

"""TensorFlow's checkpoints, of TF1's Saver and of TF2's object graphs."""

from __future__ import annotations

import os
import re
from pathlib import Path

import tensorflow as tf

from mnasdet.errors import CheckpointError
from mnasdet.training.literal_paths import literal, shown
from mnasdet.training.warm_start.source import Source

FORMAT = "a TensorFlow checkpoint"

# The endings of a checkpoint's files.
_ENDING = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")

# TF1's first format ends with it: it is one file, a table of LevelDB. slim's ResNets have it.
_LEVELDB = bytes.fromhex("57fb808b247547db")

# In the object graph of every checkpoint of TF2, and the counters of both.
_NO_WEIGHTS = ("_CHECKPOINTABLE_OBJECT_GRAPH", "global_step", "save_counter")


def prefix_of(path: str) -> str:
    """Returns the prefix of the checkpoint that a path names; empty if it names none.

    Args:
      path: a prefix, one of its files, or a folder, of which the newest one counts; or that of a
        model of the OD API's zoo, unpacked.
    """
    if os.path.isdir(path):
        # The zoo's models of TF2 have their checkpoint in a folder of this name.
        return _newest(path) or _newest(os.path.join(path, "checkpoint"))
    prefix = _ENDING.sub("", path)
    if os.path.exists(f"{prefix}.index"):
        return prefix
    return path if _is_first_format(path) else ""


def _newest(folder: str) -> str:
    if not os.path.isdir(folder):
        return ""
    if newest := tf.train.latest_checkpoint(literal(folder)):
        return newest
    # The file that names the newest is often missing, or names a folder of those who trained it.
    found = list(Path(folder).glob("*.index"))
    return _ENDING.sub("", str(found[0])) if len(found) == 1 else ""


def _is_first_format(path: str) -> bool:
    if not os.path.isfile(path) or os.path.getsize(path) < len(_LEVELDB):
        return False
    with open(path, "rb") as file:
        file.seek(-len(_LEVELDB), os.SEEK_END)
        return file.read() == _LEVELDB


def open_source(prefix: str) -> Source:
    """Opens a checkpoint.

    Raises:
      CheckpointError: it is damaged.
    """
    try:
        reader = tf.train.load_checkpoint(literal(prefix))
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        reason = shown(str(error).splitlines()[0], prefix)
        raise CheckpointError(f"{prefix}: not a readable checkpoint: {reason}") from None
    found = reader.get_variable_to_shape_map()
    shapes = {name: found[name] for name in sorted(found) if not name.startswith(_NO_WEIGHTS)}
    return Source(prefix, FORMAT, shapes, reader.get_tensor)

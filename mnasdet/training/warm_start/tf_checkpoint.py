"""TensorFlow's checkpoints, of TF1's Saver and of TF2's object graphs."""

from __future__ import annotations

import os

import tensorflow as tf

from mnasdet.errors import CheckpointError
from mnasdet.training.literal_paths import literal, shown
from mnasdet.training.warm_start.source import Source

FORMAT = "a TensorFlow checkpoint"


def prefix_of(path: str) -> str:
    """Returns the prefix of the checkpoint that a path names; empty if it names none.

    Args:
      path: a prefix, one of its files, or a folder, of which the newest one counts.
    """
    if os.path.isdir(path):
        return tf.train.latest_checkpoint(literal(path)) or ""
    prefix = path.removesuffix(".index")
    return prefix if os.path.exists(f"{prefix}.index") else ""


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
    return Source(prefix, FORMAT, reader.get_variable_to_shape_map(), reader.get_tensor)

"""Writes the checkpoints of a training into a folder and keeps the newest."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import tensorflow as tf

from mnasdet import errors, files
from mnasdet.errors import CheckpointError
from mnasdet.training import checkpoints


def save(checkpoint: tf.train.Checkpoint, folder: Path, step: int, max_to_keep: int) -> None:
    """Writes checkpoint NAME-STEP, then deletes the oldest ones over the number that is kept.

    tf.train.CheckpointManager keeps its list in the file `checkpoint`, and forgets what is there
    where a run died while it wrote that. Here the files themselves are the list; that file is
    written for tf.train.latest_checkpoint.

    Raises:
      CheckpointError: it cannot be written; nothing of it is left, and the others stay.
    """
    prefix = folder / f"{checkpoints.NAME}-{step}"
    files.make_folder(folder)
    # Ahead of writing: a killed process may have left as much as a checkpoint has on a full disk.
    _remove_unfinished(folder)
    try:
        _write(checkpoint, prefix)
        files.write(folder / "checkpoint", f'model_checkpoint_path: "{prefix.name}"\n')
    except (tf.errors.OpError, OSError) as error:
        _remove(prefix)
        is_ours = isinstance(error, OSError) and error.strerror
        reason = error.strerror if is_ours else errors.foreign_line(error)
        kept = checkpoints.all_in(folder)
        last = f"the newest one is {kept[-1]}" if kept else "there is none yet"
        raise CheckpointError(
            f"{folder}: the checkpoint of step {step} cannot be written: {reason}; {last}"
        ) from None
    for old in checkpoints.all_in(folder)[:-max_to_keep]:
        _remove(Path(old))


def _write(checkpoint: tf.train.Checkpoint, prefix: Path) -> None:
    try:
        checkpoint.write(str(prefix))
        # On the disk before the older ones go: a power cut leaves one of them whole.
        names = [file.name for file in prefix.parent.glob(f"{prefix.name}.*")]
        files.sync_folder(prefix.parent, names)
    except BaseException:  # Ctrl-C, too, leaves no half of a checkpoint.
        _remove(prefix)
        raise


def _remove_unfinished(folder: Path) -> None:
    """Removes what a process left that was killed while it saved."""
    for entry in folder.glob(f"{checkpoints.NAME}-*"):
        if entry.name.endswith("_temp"):
            shutil.rmtree(entry, ignore_errors=True)
        elif ".tempstate" in entry.name:
            with contextlib.suppress(OSError):
                entry.unlink()


def _remove(prefix: Path) -> None:
    # TensorFlow writes into NAME-STEP_temp, then renames.
    shutil.rmtree(f"{prefix}_temp", ignore_errors=True)
    for file in prefix.parent.glob(f"{prefix.name}.*"):
        with contextlib.suppress(OSError):
            file.unlink()

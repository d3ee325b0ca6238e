"""Tests that the disk has a new checkpoint before the old one goes, and what an error leaves."""

import os
from pathlib import Path

import pytest
import tensorflow as tf

from mnasdet.errors import CheckpointError
from mnasdet.training import checkpoint_writer, checkpoints
from tests.full_disk import full_disk


@pytest.fixture
def state():
    return tf.train.Checkpoint(weights={"kernel": tf.Variable(tf.zeros([1000]))})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_disk_has_the_new_one_before_the_old_one_goes(state, tmp_path, monkeypatch):
    checkpoint_writer.save(state, tmp_path, 1, max_to_keep=1)
    happened = []
    fsync, unlink = os.fsync, Path.unlink

    def told_fsync(descriptor):
        happened.append(f"sync {os.fstat(descriptor).st_ino}")
        fsync(descriptor)

    def told_unlink(self, *arguments, **options):
        happened.append(f"delete {self.name}")
        unlink(self, *arguments, **options)

    monkeypatch.setattr(os, "fsync", told_fsync)
    monkeypatch.setattr(Path, "unlink", told_unlink)
    checkpoint_writer.save(state, tmp_path, 2, max_to_keep=1)
    deleted = [number for number, what in enumerate(happened) if what.startswith("delete ckpt-1.")]
    assert len(deleted) == 2
    synced = happened[: deleted[0]]
    for name in ("ckpt-2.index", "ckpt-2.data-00000-of-00001", "."):
        path = tmp_path / name
        assert f"sync {path.stat().st_ino}" in synced
    assert names(tmp_path) == ["checkpoint", "ckpt-2.data-00000-of-00001", "ckpt-2.index"]


def test_a_full_disk_is_one_line_and_leaves_nothing(state, tmp_path):
    checkpoint_writer.save(state, tmp_path, 1, max_to_keep=1)
    before = names(tmp_path)
    with full_disk(1000), pytest.raises(CheckpointError) as caught:
        checkpoint_writer.save(state, tmp_path, 2, max_to_keep=1)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}: the checkpoint of step 2 cannot be written: ")
    assert message.endswith(f"; the newest one is {tmp_path}/ckpt-1")
    assert "\n" not in message
    assert "{{" not in message
    assert names(tmp_path) == before


def test_ctrl_c_leaves_nothing(state, tmp_path, monkeypatch):
    def interrupted(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint_writer.save(state, tmp_path, 1, max_to_keep=1)
    assert names(tmp_path) == []
    assert checkpoints.all_in(tmp_path) == []


def test_what_a_killed_process_left_is_removed(state, tmp_path):
    (tmp_path / "ckpt-7_temp").mkdir()
    for name in ("ckpt-7_temp/part-00000-of-00001.index", "ckpt-7.index.tempstate123"):
        (tmp_path / name).touch()
    checkpoint_writer.save(state, tmp_path, 8, max_to_keep=1)
    assert names(tmp_path) == ["checkpoint", "ckpt-8.data-00000-of-00001", "ckpt-8.index"]

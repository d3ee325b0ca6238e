"""Files on another file system: TensorFlow's in memory, ram://."""

import os
import secrets

import pytest
import tensorflow as tf

from mnasdet import files, remote
from mnasdet.errors import UserError
from mnasdet.text_files import read_text


@pytest.fixture
def folder():
    address = f"ram://{secrets.token_hex(8)}/run"
    tf.io.gfile.makedirs(address)
    return address


def put(address, content):
    tf.io.gfile.makedirs(os.path.dirname(address))
    if tf.io.gfile.exists(address):
        tf.io.gfile.remove(address)  # ram:// would append.
    with tf.io.gfile.GFile(address, "w") as file:
        file.write(content)


def tree(address):
    return {
        os.path.join(place, name).removeprefix(f"{address}/"): tf.io.gfile.GFile(
            os.path.join(place, name)
        ).read()
        for place, _, names in tf.io.gfile.walk(address)
        for name in names
    }


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("gs://bucket/a", "gs://bucket/a"),
        # As pathlib writes it.
        ("gs:/bucket/a", "gs://bucket/a"),
        ("/data/gs://x", ""),
        ("runs/a:b", ""),
        ("c:/windows", ""),
        ("file:///data", ""),
    ],
)
def test_paths_on_other_file_systems(path, url):
    assert remote.url(path) == url


def test_a_text_is_read_from_anywhere(folder):
    put(f"{folder}/map.pbtxt", "item {}")
    assert read_text(f"{folder}/map.pbtxt", UserError, "label map") == "item {}"
    with pytest.raises(UserError, match=f"{folder}/none.pbtxt: no such file"):
        read_text(f"{folder}/none.pbtxt", UserError, "label map")


def test_a_local_copy_of_a_file_a_folder_or_a_checkpoint(folder):
    for name in ("ckpt-2.index", "ckpt-2.data-0", "ckpt-20.index", "a.textproto", "best/b"):
        put(f"{folder}/{name}", name)
    assert remote.local("runs/a") == "runs/a"
    with open(remote.local(f"{folder}/a.textproto")) as file:
        assert file.read() == "a.textproto"
    assert set(os.listdir(remote.local(folder))) == {
        "ckpt-2.index",
        "ckpt-2.data-0",
        "ckpt-20.index",
        "a.textproto",
    }
    prefix = remote.local(f"{folder}/ckpt-2")
    assert os.path.basename(prefix) == "ckpt-2"
    beside = set(os.listdir(os.path.dirname(prefix)))
    assert beside == {"ckpt-2.index", "ckpt-2.data-0", "a.textproto"}


def test_a_mirror_brings_what_is_there_and_sends_what_changed(folder):
    put(f"{folder}/old", "1")
    put(f"{folder}/best/kept", "2")
    with remote.mirrored(f"{folder}/") as mirror:
        assert (mirror.folder / "best" / "kept").read_text() == "2"
        # A file that was not changed here is not sent.
        put(f"{folder}/best/kept", "changed there")
        (mirror.folder / "old").unlink()
        (mirror.folder / "inner").mkdir()
        (mirror.folder / "inner" / "new").write_text("3")
        (mirror.folder / ".lock").touch()
        mirror.send()
    assert tree(folder) == {"best/kept": "changed there", "inner/new": "3"}
    assert not mirror.folder.exists()


def test_a_local_folder_is_its_own_mirror(tmp_path):
    with remote.mirrored(tmp_path) as mirror:
        mirror.send()
    assert mirror.folder == tmp_path


def test_what_only_writes_local_files_says_so(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for write in (files.make_folder, lambda path: files.write(f"{path}/a.json", "{}")):
        with pytest.raises(UserError, match=f"^{folder}.*: is on another file system"):
            write(folder)
    # Not a folder "ram:" here, either.
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_out_of_reach_is_one_line():
    with pytest.raises(UserError, match="^noscheme://bucket/a: .*not implemented"):
        remote.local("noscheme://bucket/a")

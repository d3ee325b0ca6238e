"""Files that are whole or not there, whatever happens while they are written."""

import errno
import json
import os
import stat
import tempfile
import threading
from pathlib import Path

import pytest

from mnasdet import files
from mnasdet.errors import UserError
from tests.full_disk import full_disk


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "search.json"
    files.write(path, "old")
    with full_disk(1000), pytest.raises(OSError) as caught:
        files.write(path, "x" * 100_000)
    assert caught.value.filename == str(path)
    assert caught.value.strerror
    assert path.read_text() == "old"
    assert names(tmp_path) == ["search.json"]


def test_an_error_about_something_else_stays_what_it_is(tmp_path):
    error = OSError("image file is truncated")
    with pytest.raises(OSError) as caught, files.replacing([tmp_path / "a"]):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_nothing_is_left_of_what_was_begun(tmp_path, monkeypatch, failing, error):
    path = tmp_path / "search.json"
    files.write(path, "old")

    def fails(*arguments):
        if isinstance(error, OSError) and failing == "replace":
            raise OSError(error.errno, error.strerror, *arguments[:1])  # As the real one does.
        raise error

    monkeypatch.setattr(os, failing, fails)
    with pytest.raises(type(error)) as caught:
        files.write(path, "new")
    if isinstance(error, OSError):
        assert (caught.value.filename, caught.value.errno) == (str(path), 28)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["search.json"]


def test_the_disk_has_the_content_before_the_name_and_the_name_before_the_end(
    tmp_path, monkeypatch
):
    happened = []
    fsync, replace = os.fsync, os.replace

    def told_fsync(descriptor):
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        size = os.fstat(descriptor).st_size
        happened.append("folder" if folder else f"{size} bytes")
        fsync(descriptor)

    def told_replace(old, new):
        happened.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", told_fsync)
    monkeypatch.setattr(os, "replace", told_replace)
    files.write(tmp_path / "a", "four")
    assert happened == ["4 bytes", "rename", "folder"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        files.write(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o755], ids=oct)
def test_permissions_of_a_file_that_is_replaced_stay(tmp_path, mode):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text("old")
        path.chmod(mode)
    files.write(paths[0], "new")
    with files.replacing(paths[1:]) as (partial,):
        files.fill(partial, b"new")
    for path in paths:
        assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", mode)


def refuse_new_files(monkeypatch, code):
    """Refuses new files as a folder does that may not be written, which root would not notice."""

    def refusing(path, mode):
        assert mode == "xb"
        raise OSError(code, os.strerror(code), path)

    monkeypatch.setattr(files, "open", refusing, raising=False)


def refuse_renaming(monkeypatch, code):
    """Refuses to replace a file, as the system does one that is mounted by itself."""

    def refusing(old, new):
        raise OSError(code, os.strerror(code), old, None, new)

    monkeypatch.setattr(os, "replace", refusing)


@pytest.mark.parametrize(
    ("refuse", "code"),
    [
        (refuse_new_files, errno.EACCES),
        (refuse_new_files, errno.EPERM),
        (refuse_new_files, errno.EROFS),
        (refuse_renaming, errno.EBUSY),
    ],
)
def test_a_file_that_may_be_written_but_not_replaced_is_written_in_its_place(
    tmp_path, monkeypatch, refuse, code
):
    path = tmp_path / "search.json"
    path.write_text("old and longer")
    before = path.stat()
    refuse(monkeypatch, code)
    files.write(path, "new")
    assert path.read_text() == "new"
    assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)
    assert names(tmp_path) == ["search.json"]


def test_a_new_file_in_a_folder_that_may_not_be_written_is_told(tmp_path, monkeypatch):
    refuse_new_files(monkeypatch, errno.EACCES)
    with pytest.raises(PermissionError) as caught:
        files.write(tmp_path / "search.json", "new")
    assert caught.value.filename == str(tmp_path / "search.json")
    assert names(tmp_path) == []


def test_a_file_that_may_not_be_written_either_stays_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / "search.json"
    path.write_text("old")
    refuse_new_files(monkeypatch, errno.EACCES)
    monkeypatch.setattr(os, "access", lambda place, mode: (place, mode) != (path, os.W_OK))
    with pytest.raises(PermissionError) as caught:
        files.write(path, "new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM])
def test_a_file_system_that_cannot_sync_holds_nobody_up(tmp_path, monkeypatch, code):
    """Some cannot at all; others do not let folders be synced."""
    only_folders = code in (errno.EACCES, errno.EPERM)

    def refusing(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) or not only_folders:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refusing)
    monkeypatch.setattr(Path, "write_bytes", pytest.fail)  # It is no reason to write in place.
    files.write(tmp_path / "a", "content")
    assert (tmp_path / "a").read_text() == "content"


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="no /dev/shm on this system")
def test_a_file_in_the_memory_disk_is_replaced_as_any_other():
    """Tests /dev/shm, which holds ordinary files though it is in the folder of devices."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "search.json"
        path.write_text("old")
        with full_disk(1000), pytest.raises(OSError):
            files.write(path, "x" * 100_000)
        assert path.read_text() == "old"
        files.write(path, "new")
        assert path.read_text() == "new"
        assert names(path.parent) == ["search.json"]


def test_nobody_can_know_the_temporary_name(tmp_path, monkeypatch):
    used = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda old, new: (used.append(Path(old)), replace(old, new)))
    for _ in range(3):
        files.write(tmp_path / "a", "x")
    assert len(set(used)) == 3
    assert {path.parent for path in used} == {tmp_path}


def test_a_long_name_has_room_for_the_temporary_one(tmp_path):
    files.write(tmp_path / ("ü" * 127), "x")  # 254 bytes; 255 are the most.
    assert names(tmp_path) == ["ü" * 127]


def test_a_link_stays_and_what_it_points_to_changes(tmp_path):
    real = tmp_path / "real" / "a"
    real.parent.mkdir()
    link = tmp_path / "link"
    link.symlink_to("real/a")
    for content in ("first", "second"):  # The first finds nothing at the link's end.
        files.write(link, content)
        assert link.is_symlink()
        assert real.read_text() == content
    assert names(real.parent) == ["a"]


def test_a_pipe_gets_the_content_and_stays_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    files.write(pipe, "content")
    reader.join(10)
    assert got == ["content"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_file_that_stands_for_standard_output_is_not_replaced(tmp_path):
    """As in `--output=/dev/stdout >result`: what is printed later goes into the same file."""
    with open(tmp_path / "result", "w") as result:
        files.write(f"/dev/fd/{result.fileno()}", "content")
        result.seek(0, os.SEEK_END)
        result.write(" and more")
    assert (tmp_path / "result").read_text() == "content and more"


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path):
    with pytest.raises(IsADirectoryError) as caught:
        files.write(tmp_path, "x")
    assert caught.value.filename == str(tmp_path)


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "runs").touch()
    for folder in (tmp_path / "runs", tmp_path / "runs" / "a" / "b"):
        with pytest.raises(UserError) as caught:
            files.write(folder / "search.json", "x")
        assert str(caught.value) == f"{tmp_path}/runs: is a file; a folder is needed here"


def test_several_files_take_their_places_together(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    for path in paths:
        path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.replacing(paths) as partial:
        Path(partial[0]).write_text("new")
        1 / 0  # noqa: B018
    assert [path.read_text() for path in paths] == ["old", "old"]
    assert names(tmp_path) == ["a", "b"]
    with files.replacing(paths) as partial:
        for number, name in enumerate(partial):
            Path(name).write_text(f"new {number}")
            assert [path.read_text() for path in paths] == ["old", "old"]
    assert [path.read_text() for path in paths] == ["new 0", "new 1"]


READ = {
    "": "is empty",
    "\n": "is empty",
    "[1, 2": "is cut or damaged, no valid JSON (line 1: Expecting ',' delimiter)",
    '{\n"a": 1,\n': "is cut or damaged, no valid JSON (line 3: Expecting property name",
    '{"a": 1}\0\0': "is a binary file",
    b'{"a": "\xff"}': "is not UTF-8 (byte 0xff in line 1)",
    "[" * 100_000: "is no frontier: nested too deep",
    "1" * 5000: "is damaged, no valid JSON",
    "[1, 2]": "is no frontier: an object is needed at the top",
    "null": "is no frontier: an object is needed at the top",
    '{"b": 1}': 'is no frontier: "a" is missing',
}


def test_a_folder_appears_whole_in_place_of_an_older_one(tmp_path):
    folder = tmp_path / "a" / "export"
    for content in ("old", "new"):
        with files.replacing_folder(folder, ["x", "more"]) as partial:
            assert partial.parent == folder.parent
            (partial / "more").mkdir()
            (partial / "more" / content).write_text("")
            (partial / "x").write_text(content)
            assert (not folder.exists()) == (content == "old")
    assert (folder / "x").read_text() == "new"
    assert names(folder / "more") == ["new"]
    assert names(folder.parent) == ["export"]


def test_an_error_leaves_the_old_folder(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "x").write_text("old")
    with (
        pytest.raises(ZeroDivisionError),
        files.replacing_folder(tmp_path / "export", ["x"]) as partial,
    ):
        (partial / "x").write_text(str(1 / 0))
    assert (tmp_path / "export" / "x").read_text() == "old"
    assert names(tmp_path) == ["export"]


def test_a_folder_that_cannot_be_moved_is_the_old_one_again(tmp_path, monkeypatch):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "x").write_text("old")
    rename = os.rename

    def fails_to_replace(source, target):
        if target == folder and (source / "x").read_text() == "new":
            raise OSError(errno.EACCES, "no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_to_replace)
    with pytest.raises(OSError, match="no"), files.replacing_folder(folder, ["x"]) as partial:
        (partial / "x").write_text("new")
    assert (folder / "x").read_text() == "old"
    assert names(tmp_path) == ["export"]


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path):
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "mine").write_text("")
    for folder, message in (("export", "holds mine"), ("export/mine", "is a file")):
        with (
            pytest.raises(UserError, match=message),
            files.replacing_folder(tmp_path / folder, ["x"]),
        ):
            pass
    assert names(tmp_path / "export") == ["mine"]


@pytest.mark.parametrize("content", READ, ids=range(len(READ)))
def test_json_that_cannot_be_used_is_told_in_one_line(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        files.read_json(path, "frontier", keys=["a"], remedy="measure again")
    message = str(caught.value)
    assert message.startswith(f"{path}: {READ[content]}")
    assert "; measure again" in message
    assert "\n" not in message


def test_missing_json_and_a_folder_are_told(tmp_path):
    with pytest.raises(UserError, match="no such file; measure again$"):
        files.read_json(tmp_path / "x.json", "frontier", remedy="measure again")
    with pytest.raises(UserError, match="is a directory"):
        files.read_json(tmp_path, "frontier")


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "b": [1.5, None, "ü"], "c": {"d": {"e": True}}},
        {3: "numbers", 10: "become", 2: ("text", 0.1 + 0.2)},
        {},
        [{"a": 1}, {"a": 2, "b": []}],
        [],
    ],
)
def test_json_comes_back_as_it_was_written(tmp_path, value):
    path = tmp_path / "x.json"
    files.write_json(path, value)
    expected = json.loads(json.dumps(value))
    assert files.read_json(path, "frontier", of=type(value)) == expected
    # Other programs have one member more in every object at the top.
    plain = json.loads(path.read_text())
    for member in plain if isinstance(plain, list) else [plain]:
        assert len(member.pop("sha256")) == 64
    assert plain == expected
    # Older versions wrote none.
    path.write_text(json.dumps(value))
    assert files.read_json(path, "frontier", of=type(value)) == expected


def test_a_flipped_digit_is_found_and_the_line_says_how_to_keep_it(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"mAP": 0.5, "trials": 10})
    path.write_text(path.read_text().replace("0.5", "0.4"))
    with pytest.raises(UserError) as caught:
        files.read_json(path, "metrics file")
    assert str(caught.value) == (
        f'{path}: is damaged: its content and its "sha256" differ; if you changed it on purpose, '
        'remove "sha256"'
    )
    changed = json.loads(path.read_text())
    del changed["sha256"]
    path.write_text(json.dumps(changed))
    assert files.read_json(path, "metrics file") == {"mAP": 0.4, "trials": 10}


def test_a_literal_name_goes_before_a_pattern(tmp_path, monkeypatch):
    folder = tmp_path / "run[1]*a b\\c"
    for name in ("x[1].record", "x1.record", "y.record", ".z.record"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    (tmp_path / "run1ZZa b").mkdir()
    (tmp_path / "run1ZZa b" / "x1.record").touch()

    def found(pattern):
        return [Path(path).name for path in files.matching(f"{folder}/{pattern}")]

    assert found("x[1].record") == ["x[1].record"]
    assert found("x?.record") == ["x1.record"]
    assert found("*.record") == ["x1.record", "x[1].record", "y.record"]
    assert found("nothing*") == []
    assert found("x[1].rec*") == ["x1.record"]
    assert found("x[1]*d") == ["x1.record"]
    (folder / "x[1].record").unlink()
    assert found("x[1].record") == ["x1.record"]
    (folder / "x1.record").rename(folder / "x[1].record-1")
    assert found("x[1].rec*") == ["x[1].record-1"]
    (folder / "x[1].record-1").rename(folder / "x1.record")
    monkeypatch.chdir(folder)
    assert files.matching("y*") == ["y.record"]
    assert files.matching(f"{tmp_path}/run*/x1.record") == [
        f"{tmp_path}/run1ZZa b/x1.record",
        f"{folder}/x1.record",
    ]


def test_without_a_home_folder_the_variable_is_named(monkeypatch):
    monkeypatch.delenv("MNASDET_CACHE_DIR")
    monkeypatch.setenv("HOME", "/somewhere")
    assert files.cache_folder() == Path("/somewhere/.cache/mnasdet")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 987654)  # Nobody whom the system knows.
    with pytest.raises(UserError, match="name a folder in MNASDET_CACHE_DIR"):
        files.cache_folder()

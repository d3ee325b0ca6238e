"""The door at which a command tells errors of other packages in one line."""

import lzma
import subprocess
import sys
import zipfile
import zlib

import pytest
from absl import flags
from google.protobuf.message import DecodeError

from mnasdet import errors
from mnasdet.errors import UserError
from mnasdet.scripts import command
from tests.integration.commands import ROOT, run


def raised(error):
    def action():
        raise error

    return action


def tensorflow_error():
    import tensorflow as tf

    return tf.errors.ResourceExhaustedError(None, None, "run/x; No space left\n\tmany\nlines")


FOREIGN = {
    "tensorflow": (tensorflow_error, "run/x; No space left"),
    "recursion": (
        lambda: RecursionError("maximum recursion"),
        "something in the input is nested too deep",
    ),
    "memory": (MemoryError, "out of memory"),
    "bytes": (
        lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        "a text has characters that its encoding does not have: 'utf-8' codec",
    ),
    "number": (
        lambda: OverflowError("int too large to convert to float"),
        "a number is out of range: int too large",
    ),
    "zlib": (lambda: zlib.error("Error -3 while decompressing"), "Error -3 while decompressing"),
    "lzma": (lambda: lzma.LZMAError("Corrupt input data"), "Corrupt input data"),
    "gzip": (lambda: EOFError("Compressed file ended"), "Compressed file ended"),
    "zip": (lambda: zipfile.BadZipFile("File is not a zip file"), "File is not a zip file"),
    "flags": (lambda: flags.Error("no such flag\nhelp"), "no such flag"),
    "protobuf": (lambda: DecodeError("Error parsing message"), "Error parsing message"),
    "system": (
        lambda: OSError(28, "No space left on device", "run/x"),
        "run/x: No space left on device",
    ),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_an_error_of_another_package_is_one_line(capsys, name):
    make, line = FOREIGN[name]
    assert command._guarded(raised(make())) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith(f"error: {line}")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


@pytest.mark.parametrize("kind", [AssertionError, AttributeError, TypeError, KeyError, ValueError])
def test_a_bug_of_ours_keeps_its_traceback(kind):
    with pytest.raises(kind):
        command._guarded(raised(kind("a bug")))


def test_what_was_being_done_stands_before_it():
    with pytest.raises(UserError) as caught, errors.naming("run/tensorboard: cannot be written"):
        raise tensorflow_error()
    assert str(caught.value) == "run/tensorboard: cannot be written: run/x; No space left"
    with pytest.raises(TypeError), errors.naming("run/tensorboard: cannot be written"):
        raise TypeError("a bug")


def test_an_error_in_a_graph_is_told_by_its_cause(tmp_path):
    """TensorFlow says first that there was one, and where our source code made its node."""
    import tensorflow as tf

    path = tmp_path / "a.jpg"

    @tf.function
    def read():
        return tf.io.read_file(str(path))

    with pytest.raises(tf.errors.NotFoundError) as caught:
        read()
    assert caught.value.message.startswith("Graph execution error:")
    assert errors.foreign_line(caught.value) == f"{path}; No such file or directory"
    heading = tf.errors.InternalError(None, None, "Graph execution error:")
    assert errors.foreign_line(heading) == "Graph execution error:"


def test_nothing_is_loaded_to_know_the_errors():
    code = "from mnasdet import errors; errors.foreign_kinds(); import sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert not {"tensorflow", "google.protobuf", "absl", "lzma"} & set(done.stdout.split())


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        (
            "--num_trials=99999999999999",
            "--num_trials is 99999999999999; -2147483648 to 2147483647 are allowed",
        ),
        (f"--seed={10**19}", f"--seed is {10**19}; -{2**63} to {2**63 - 1} are allowed"),
    ],
)
def test_a_number_beyond_its_field_is_told(flag, line):
    given = ["--pipeline_config_path=quickstart", "--model_dir=x", flag]
    assert run("search", *given, status=1).stderr == f"error: {line}\n"


@pytest.mark.parametrize("number", ["nan", "inf", "1e999"])
def test_a_number_that_is_none_is_told(number):
    done = run("analyze", "--architecture=x", f"--depth_multiplier={number}", status=1)
    assert done.stderr.endswith("; a finite number is needed\n")


def test_a_folder_in_the_place_of_a_config_is_told(tmp_path):
    done = run("check_config", f"--pipeline_config_path={tmp_path}", status=1)
    assert done.stderr == f"error: {tmp_path}: is a directory; name a text-proto file in it\n"


def test_a_flag_file_that_cannot_be_read_is_told(tmp_path):
    (tmp_path / "flags").write_bytes(b"--format=\xff\xfe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "flags"):
        done = run("check_config", f"--flagfile={path}", status=1)
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1

"""Files that are no weights, or damaged, get one line that says what they are."""

import pickle
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

from mnasdet.errors import CheckpointError
from mnasdet.training.warm_start import formats


def empty(path):
    path.write_bytes(b"")


def html(path):
    path.write_text("\n<!DOCTYPE html><html><body>404: Not Found</body></html>")


def old_pickle(path):
    path.write_bytes(pickle.dumps({"conv1.weight": [1.0]}))


def torch_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/data/0", bytes(64))


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "weights")


def cut(path):
    save_file({"conv1.weight": np.ones((8, 3, 3, 3), np.float32)}, path)
    path.write_bytes(path.read_bytes()[:-100])


def long_header(path):
    path.write_bytes((2**33).to_bytes(8, "little") + b'{"a":')


def git_lfs(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 14186360\n")


def text(path):
    path.write_text("weights")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (empty, "is empty; was its download cut off?"),
        (html, "is a page of the web (HTML or XML), not the file that it links to"),
        (old_pickle, "is a pickle of PyTorch"),
        (torch_zip, "is a pickle of PyTorch"),
        (other_zip, "is a zip file without Keras' model.weights.h5 in it"),
        (cut, "is a damaged safetensors file: "),
        (long_header, "is a damaged safetensors file: "),
        (git_lfs, "is a pointer of Git LFS, not the file itself; run git lfs pull"),
        (text, "is damaged, or no .safetensors file at all; name a checkpoint of mnasdet"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_file_gets_one_line(tmp_path, make, told):
    path = tmp_path / "model.safetensors"
    make(path)
    with pytest.raises(CheckpointError) as caught:
        formats.open_source(path)
    assert str(caught.value).startswith(f"{path}: {told}")
    assert "\n" not in str(caught.value)


def test_what_is_not_there_and_what_has_no_weights(tmp_path):
    with pytest.raises(CheckpointError, match=r"none.h5: does not exist; name a checkpoint of mn"):
        formats.open_source(tmp_path / "none.h5")
    with pytest.raises(CheckpointError, match=r": has no checkpoint in it; name a checkpoint of "):
        formats.open_source(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r": is a SavedModel, a network for inference; name"):
        formats.open_source(tmp_path)


def test_the_format_is_found_by_content(tmp_path):
    """A file of safetensors that is called otherwise is read all the same."""
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_file({"fc.weight": value}, tmp_path / "model.bin")
    source = formats.open_source(tmp_path / "model.bin")
    assert {name: tuple(shape) for name, shape in source.shapes.items()} == {"fc.weight": (2, 3)}
    np.testing.assert_array_equal(source.get("fc.weight"), value)


def test_a_file_of_safetensors_may_begin_as_a_pickle(tmp_path):
    """Its first byte is the lowest of the header's length, which may be a pickle's mark, 80."""
    path = tmp_path / "model.safetensors"
    value = np.zeros(1, np.float32)
    name = "a"
    while path.exists() is False or path.read_bytes()[:1] != b"\x80":
        name += "a"
        save_file({name: value}, path)
    assert formats.open_source(path).shapes.keys() == {name}


def test_values_that_are_not_finite_are_no_weights(tmp_path):
    save_file({"fc.bias": np.array([1.0, np.nan], np.float32)}, tmp_path / "model.safetensors")
    source = formats.open_source(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"fc.bias has values that are NaN or infinite"):
        source.get("fc.bias")

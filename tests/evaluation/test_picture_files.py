import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mnasdet.data import pictures, pixels
from mnasdet.errors import DataError
from mnasdet.evaluation import picture_files

RED, BLUE = (255, 0, 0), (0, 0, 255)


def two_halves():
    """20 wide and 10 high: red on the left, blue on the right."""
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10], pixels[:, 10:] = RED, BLUE
    return Image.fromarray(pixels)


def test_a_picture_is_turned_as_its_exif_says(tmp_path):
    orientation = Image.Exif()
    orientation[0x112] = 6  # The camera was turned: a viewer shows it a quarter clockwise.
    two_halves().save(tmp_path / "a.png", exif=orientation)
    image = picture_files.read_picture(tmp_path / "a.png")
    assert image.shape == (20, 10, 3)
    assert tuple(image[0, 5]) == RED
    assert tuple(image[19, 5]) == BLUE


def test_sixteen_bits_are_neither_black_nor_white(tmp_path):
    Image.fromarray(np.full((4, 4), 30_000, np.uint16)).save(tmp_path / "a.png")
    # 30000 / 257 = 116.7.
    assert (picture_files.read_picture(tmp_path / "a.png") == 117).all()


def test_twelve_bits_are_as_bright_as_in_the_records_of_training(tmp_path):
    """A camera writes 12 bits into 16: over 65535 they would be nearly black."""
    ramp = np.linspace(1000, 4000, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    found = picture_files.read_picture(tmp_path / "a.png")
    np.testing.assert_allclose(found[..., 0], ramp * (255 / 4095), atol=0.51)
    record = pictures.load(tmp_path / "a.png").encoded
    np.testing.assert_array_equal(found, tf.io.decode_image(record, channels=3))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "LA"])
def test_every_mode_is_three_channels(tmp_path, mode):
    two_halves().convert(mode).save(tmp_path / "a.png")
    image = picture_files.read_picture(tmp_path / "a.png")
    assert (image.shape, image.dtype) == ((10, 20, 3), np.uint8)


def test_what_cannot_be_read_says_why(tmp_path, monkeypatch):
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.jpg: not a picture"):
        picture_files.read_picture(tmp_path / "text.jpg")
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8))
    noise.save(tmp_path / "whole.jpg")
    content = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"cut\.jpg: cannot be read: .*truncated"):
        picture_files.read_picture(tmp_path / "cut.jpg")
    monkeypatch.setattr(pixels, "MAX_PIXELS", 1000)
    expected = r"whole\.jpg: cannot be read: is too large: 64 x 64 pixels, more than 1,000; make"
    with pytest.raises(DataError, match=expected):
        picture_files.read_picture(tmp_path / "whole.jpg")


def test_a_pipe_or_a_device_is_not_opened(tmp_path, monkeypatch):
    """Opening a pipe waits for ever."""
    monkeypatch.setattr(Image, "open", pytest.fail)
    os.mkfifo(tmp_path / "pipe.jpg")
    assert picture_files.pictures_in(tmp_path) == []
    for path, kind in ((tmp_path / "pipe.jpg", "pipe"), ("/dev/zero", "device")):
        with pytest.raises(DataError, match=f"{path}: cannot be read: is no .* but a {kind}"):
            picture_files.read_picture(path)


def test_the_pictures_of_a_folder(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("b.PNG", "a.jpg", "inner/c.webp", ".hidden.jpg", "notes.txt", "paper.pdf"):
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    found = picture_files.pictures_in(tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.jpg", "b.PNG", "inner/c.webp"]

"""Which file a name means, and how a picture is read."""

import io
import os
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mnasdet.data import pictures

# Cells of 8 pixels, so that JPEG changes little.
PIXELS = np.kron(
    np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8), np.ones((8, 8, 1), np.uint8)
)


def encoded(image, image_format, **options):
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def load(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    return pictures.load(tmp_path / "x")


def decoded(picture):
    """The pixels as training gets them."""
    return tf.io.decode_image(picture.encoded, channels=3, expand_animations=False).numpy()


@pytest.fixture
def folder(tmp_path):
    """A folder with some files, and one beside it that is not to be read."""
    for name in ("images/a.jpg", "images/B c.JPEG", "images/sub/d.png", "outside.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return pictures.Folder(tmp_path / "images")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jpg", ("a.jpg", False)),
        ("./sub//d.png", ("sub/d.png", False)),
        ("a", ("a.jpg", True)),
        ("A.JPG", ("a.jpg", True)),
        (" a.jpg ", ("a.jpg", True)),
        ("b C.jpeg", ("B c.JPEG", True)),
        ("sub\\d.png", ("sub/d.png", True)),
        ("C:\\data\\images\\sub\\d.png", ("sub/d.png", True)),
        ("/home/u/images/a.jpg", ("a.jpg", True)),
        ("https://host/x/a.jpg", ("a.jpg", True)),
        ("d.png", ("sub/d.png", True)),
        ("d", ("sub/d.png", True)),
    ],
)
def test_names(folder, name, expected):
    assert folder.find(name) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.png", "no picture 'a.png'; did you mean 'a.jpg'"),
        ("other/d.png", "no picture 'other/d.png'; did you mean 'sub/d.png'"),
        ("x" * 5000, "no picture 'xxx"),
        ("", "no picture ''"),
        ("../outside.jpg", "leads out of"),
        ("sub/../../outside.jpg", "leads out of"),
    ],
)
def test_names_that_mean_no_file(folder, name, message):
    with pytest.raises(ValueError, match=message):
        folder.find(name)


def test_an_absolute_path_is_not_opened(folder):
    with pytest.raises(ValueError, match="no picture"):
        folder.find(str(folder.path.parent / "outside.jpg"))


@pytest.mark.parametrize(("written", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_unicode_forms(folder, written, asked):
    name = "Blutkörperchen.jpg"
    stored = unicodedata.normalize(written, name)
    (folder.path / stored).write_bytes(b"x")
    assert folder.find(unicodedata.normalize(asked, name)) == (stored, True)


def test_two_files_that_a_name_may_mean(folder):
    (folder.path / "A.JPG").write_bytes(b"x")
    with pytest.raises(ValueError, match="'A' may be 'A.JPG' or 'a.jpg'|may be 'a.jpg' or 'A"):
        folder.find("A")
    assert folder.find("a.jpg") == ("a.jpg", False)


def test_links_and_devices(folder):
    (folder.path / "out.jpg").symlink_to(folder.path.parent / "outside.jpg")
    (folder.path / "in.jpg").symlink_to(folder.path / "a.jpg")
    (folder.path / "dead.jpg").symlink_to(folder.path / "nothing.jpg")
    (folder.path / "up").symlink_to(folder.path.parent)
    os.mkfifo(folder.path / "pipe.jpg")
    assert folder.find("in.jpg") == ("in.jpg", False)
    for name, message in (
        ("out.jpg", "is a link out of"),
        ("up/outside.jpg", "is a link out of"),
        ("dead.jpg", "is a link to nothing"),
        ("pipe.jpg", "is no ordinary file"),
        ("sub", "is no ordinary file"),
    ):
        with pytest.raises(ValueError, match=message):
            folder.find(name)


def test_endings():
    assert pictures.without_ending("sub/a.b.JPG") == "sub/a.b"
    assert pictures.without_ending("photo.v2") == "photo.v2"


# Data that phones append to a picture in its file.
BEHIND = [
    b"\0" * 1000,
    b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 9,
    b"MotionPhoto_Data" + b"\xff\xda\xff\x3b\xff\xd8 mdat" * 50,
]


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_data_behind_a_picture_is_no_damage(tmp_path, behind, image_format):
    content = encoded(Image.fromarray(PIXELS), image_format) + behind
    picture = load(tmp_path, content)
    assert (picture.encoded, picture.converted) == (content, "")
    assert pictures.header(content) == (image_format.lower(), 40, 56)
    with pytest.raises(ValueError, match="cut short|damaged"):
        load(tmp_path, content[: 40 * 56 // 16])


def grey(values):
    return Image.fromarray(np.asarray(values, np.uint16))


# Pictures that TensorFlow would not read, or not as people see them. JPEGs may differ a little.
OTHER_FORMATS = [
    ("BMP", Image.fromarray(PIXELS), {}, 0),
    ("TIFF", Image.fromarray(PIXELS), {}, 0),
    ("WEBP", Image.fromarray(PIXELS), {"lossless": True}, 0),
    ("GIF", Image.fromarray(PIXELS).quantize(35), {}, 4),
    ("JPEG", Image.fromarray(PIXELS).convert("CMYK"), {"quality": 95}, 40),
    ("PNG", Image.fromarray(PIXELS).convert("RGBA"), {}, 0),
    ("PNG", Image.fromarray(PIXELS).quantize(35), {}, 4),
]


@pytest.mark.parametrize(("image_format", "image", "options", "tolerance"), OTHER_FORMATS)
def test_formats_keep_their_colours(tmp_path, image_format, image, options, tolerance):
    picture = load(tmp_path, encoded(image, image_format, **options))
    assert picture.image_format in pictures.FORMATS
    np.testing.assert_allclose(decoded(picture), PIXELS, atol=tolerance)
    assert pictures.header(picture.encoded) == (picture.image_format, 40, 56)


def test_the_first_picture_of_an_animation(tmp_path):
    frames = [Image.fromarray(PIXELS).quantize(35), Image.fromarray(255 - PIXELS).quantize(35)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    picture = load(tmp_path, content)
    np.testing.assert_allclose(decoded(picture), PIXELS, atol=4)
    assert picture.converted == "GIF"


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_sixteen_bits_are_not_black(tmp_path, bits):
    """Cameras write fewer bits into sixteen; of 255 shades each is found again."""
    shades = np.arange(256).reshape(16, 16)
    content = encoded(grey(np.round(shades * ((2**bits - 1) / 255))), "PNG")
    picture = load(tmp_path, content)
    np.testing.assert_array_equal(decoded(picture)[..., 0], shades)
    with pytest.raises(ValueError, match="the PNG has 16 bits a channel; convert it to 8"):
        pictures.header(content)


@pytest.mark.parametrize("size", [(10_001, 10_000), (20_000, 20_000)])
def test_a_huge_picture_is_not_damaged(tmp_path, size):
    content = encoded(Image.new("1", size), "PNG")
    for read in (pictures.header, lambda content: load(tmp_path, content)):
        with pytest.raises(ValueError, match="is too large: .*more than 100,000,000.*smaller"):
            read(content)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_upright(tmp_path, orientation, image_format):
    """The stored pixels are such that upright they are PIXELS."""
    # numpy's words for what EXIF's table of orientations says of row 0 and column 0.
    stored = {
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.transpose(1, 0, 2),
        6: np.rot90(PIXELS, 1),
        7: PIXELS[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(PIXELS, -1),
    }[orientation]
    image = Image.fromarray(np.ascontiguousarray(stored))
    exif = image.getexif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if image_format == "JPEG" else {}
    picture = load(tmp_path, encoded(image, image_format, exif=exif, **options))
    assert picture.orientation == orientation
    assert (picture.height, picture.width) == stored.shape[:2]
    assert picture.upright_size == (40, 56)
    turned = pictures.upright(picture)
    assert (turned.height, turned.width, turned.orientation) == (40, 56, 1)
    np.testing.assert_allclose(decoded(turned), PIXELS, atol=12 if image_format == "JPEG" else 0)
    assert load(tmp_path, turned.encoded).orientation == 1


@pytest.mark.parametrize("content", [b"", b"no picture", b"\xff\xd8\xff", b"GIF89a" + b"\0" * 9])
def test_what_is_no_picture(tmp_path, content):
    with pytest.raises(ValueError, match="damaged or no image at all"):
        load(tmp_path, content)

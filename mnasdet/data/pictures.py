"""Picture files: which one a name means, and its pixels as training decodes them."""

from __future__ import annotations

import difflib
import io
import os
import re
import struct
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
from PIL import Image, ImageOps

from mnasdet.data import ordinary_files, pixels
from mnasdet.data.values import shown

FORMATS = ("jpeg", "png")
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".jfif", ".jpe")

# To look for the nearest of 100,000 names takes a second.
_MAX_SUGGESTIONS = 20

# TensorFlow decodes these to the colours that people see. It shows 16 bits a channel as the upper
# eight, which are black where a camera uses twelve.
_PLAIN_MODES = ("RGB", "L", "P", "1", "LA", "RGBA")
_JPEG_QUALITY = 95
_ORIENTATION_TAG = 0x0112

# In a JPEG's last scan 0xFF is followed by a stuffed zero, a restart marker or fill. At anything
# else TensorFlow's decoder gives up, but only at the end of the picture: one of its upper part
# alone would be decoded with the wrong pixels.
_JPEG_STRAY_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_SCAN = b"\xff\xda"

# A scan's length is that of one to four colours.
_JPEG_SCAN_HEADER = re.compile(rb"\xff\xda\0(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class Picture:
    """An encoded JPEG or PNG of 8 bits a channel.

    Attributes:
      height, width: of the stored pixels.
      orientation: EXIF's, 1 to 8; a viewer turns the pixels by it, TensorFlow does not.
      converted: says from what it was converted; "" for the bytes of the file itself.
    """

    encoded: bytes
    image_format: str
    height: int
    width: int
    orientation: int = 1
    converted: str = ""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Returns the (height, width) that a viewer shows."""
        # Orientations 5 to 8 exchange the sides.
        sideways = self.orientation >= 5
        return (self.width, self.height) if sideways else (self.height, self.width)


class Folder:
    """Finds the pictures of a folder by the names that annotations have for them.

    A name that is not there as it stands may still mean exactly one file: with the backslashes of
    Windows, with folders of another machine in front, without its ending, in other letters or
    another Unicode form.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._root = self.path.resolve()
        self._by_name: dict[str, list[str]] | None = None
        self._suggestions_left = _MAX_SUGGESTIONS

    def find(self, name: str) -> tuple[str, bool]:
        """Returns the file that a name means.

        Returns:
          Its path below the folder, with "/", and whether the name had to be understood.

        Raises:
          ValueError: when there is none, more than one, or one that is not to be read.
        """
        exact = name.replace(os.sep, "/")
        if _is_inside(exact) and os.path.lexists(self.path / exact):
            return self._readable(os.path.normpath(exact)), False
        parts = [part for part in re.split(r"[\\/]+", name.strip()) if part not in ("", ".")]
        if ".." in parts:
            raise ValueError(
                f"{shown(name)!r} leads out of {self.path}; give the folder as --images_dir"
            )
        # From the longest path to the bare name: folders of another machine stand in front.
        for start in range(len(parts)):
            if found := self._files().get(_folded("/".join(parts[start:]))):
                return self._only(found, name), True
        # The name has lost the folder that the file is in.
        if len(parts) == 1 and (found := self._files().get("*/" + _folded(parts[0]))):
            return self._only(found, name), True
        raise ValueError(f"{self.path}: no picture {shown(name)!r}{self._near(parts)}")

    def pictures(self) -> list[str]:
        """Returns the paths of all files with a picture's ending, sorted."""
        return sorted(name for name in self._walk() if name.lower().endswith(ENDINGS))

    def _only(self, found: list[str], name: str) -> str:
        if len(found) > 1:
            raise ValueError(f"{name!r} may be {found[0]!r} or {found[1]!r} in {self.path}")
        return self._readable(found[0])

    def _readable(self, name: str) -> str:
        """Returns the name of a picture that may be read.

        A device or a pipe would be read for ever. A link may lead to any file of the machine, which
        would then be in records that others are given.
        """
        # Path.resolve raises RuntimeError for a link to itself.
        resolved = Path(os.path.realpath(self.path / name))
        if not resolved.is_relative_to(self._root):
            raise ValueError(
                f"{shown(name)!r} is a link out of {self.path}; copy the picture there, or give "
                "the folder that the links lead to as --images_dir"
            )
        if not resolved.exists():
            raise ValueError(f"{shown(name)!r} is a link to nothing")
        try:
            ordinary_files.size(resolved)
        except ValueError as error:
            raise ValueError(f"{shown(name)!r} {error}") from None
        return Path(name).as_posix()

    def _near(self, parts: list[str]) -> str:
        if not self._suggestions_left:
            return ""
        self._suggestions_left -= 1
        asked = parts[-1] if parts else ""
        names = {name.rpartition("/")[2]: name for name in self._walk()}
        same = [name for name in names if without_ending(name) == without_ending(asked)]
        close = same or difflib.get_close_matches(asked, names, n=1)
        return f"; did you mean {names[close[0]]!r}?" if close else ""

    def _files(self) -> dict[str, list[str]]:
        """Returns the files by their folded paths and by "*/" and their names.

        Both are there with and without the ending.
        """
        if self._by_name is None:
            by_name = defaultdict(list)
            for name in self._walk():
                last = name.rpartition("/")[2]
                for key in {name, without_ending(name)}:
                    by_name[_folded(key)].append(name)
                for key in {last, without_ending(last)} if last != name else ():
                    by_name["*/" + _folded(key)].append(name)
            self._by_name = dict(by_name)
        return self._by_name

    def _walk(self) -> list[str]:
        return [
            Path(folder, file).relative_to(self.path).as_posix()
            for folder, _, files in os.walk(self.path)
            for file in files
        ]


def without_ending(name: str) -> str:
    """Cuts the ending of a picture's name; of "a.v2" nothing is cut."""
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in ENDINGS else name


def load(path: str | os.PathLike[str]) -> Picture:
    """Reads a picture as a JPEG or PNG that TensorFlow decodes to the colours that people see.

    Raises:
      OSError: when the file cannot be read.
      ValueError: when it is no picture, damaged or too large, or no ordinary file.
    """
    ordinary_files.check_picture(path)
    encoded = Path(path).read_bytes()
    with _opened(encoded) as image:
        kind = _format(image)
        if kind in FORMATS and image.mode in _PLAIN_MODES:
            if not can_be_decoded(encoded):
                raise ValueError(_damage(encoded, kind) or _damaged(kind))
            return Picture(encoded, kind, image.height, image.width, _orientation(image))
        plain = pixels.eight_bits(image)
        # After the pixels: Pillow turns those of a TIFF and forgets its orientation.
        orientation = _orientation(image)
        converted = kind.upper() if kind not in FORMATS else f"{image.mode} {kind.upper()}"
    kind = "jpeg" if kind == "jpeg" else "png"
    return Picture(_encode(plain, kind), kind, plain.height, plain.width, orientation, converted)


def upright(picture: Picture) -> Picture:
    """Turns the pixels as a viewer does, so that the model sees what people see.

    A JPEG is coded anew at high quality; a PNG loses nothing.
    """
    with _opened(picture.encoded) as image:
        image.getexif()[_ORIENTATION_TAG] = picture.orientation
        turned = ImageOps.exif_transpose(image)
        plain = turned if turned.mode in ("RGB", "L") else turned.convert("RGB")
    encoded = _encode(plain, picture.image_format)
    return Picture(encoded, picture.image_format, plain.height, plain.width, 1, picture.converted)


def header(encoded: bytes) -> tuple[str, int, int]:
    """Returns format ("jpeg" or "png"), height and width without decoding sound pixels.

    Raises:
      ValueError: when it is no JPEG or PNG, damaged or too large.
    """
    with _opened(encoded) as image:
        kind, height, width = _format(image), image.height, image.width
        if kind not in FORMATS:
            raise ValueError(f"the image is {kind.upper()}; JPEG and PNG can be read")
        if image.mode not in _PLAIN_MODES and image.mode != "CMYK":
            raise ValueError(f"the {kind.upper()} has 16 bits a channel; convert it to 8 bits")
    # Only a suspicion: phones write other data after the picture. The decoder decides.
    suspicion = _damage(encoded, kind)
    if suspicion and not can_be_decoded(encoded):
        raise ValueError(suspicion)
    return kind, height, width


def can_be_decoded(encoded: bytes) -> bool:
    """Returns whether the decoder that training uses reads the picture."""
    try:
        tf.io.decode_image(encoded, channels=3, expand_animations=False)
    except tf.errors.InvalidArgumentError:
        return False
    return True


def _opened(encoded: bytes) -> Image.Image:
    try:
        return pixels.opened(io.BytesIO(encoded))
    except pixels.TooLargeError:
        raise
    except (OSError, SyntaxError, ValueError, OverflowError):
        raise ValueError("the image is damaged or no image at all") from None


def _format(image: Image.Image) -> str:
    # MPO is a JPEG with more pictures after it, as phones write it.
    return (image.format or "").lower().replace("mpo", "jpeg")


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, SyntaxError, ValueError, struct.error):
        return 1  # Viewers ignore damaged EXIF data as well.
    return orientation if orientation in range(1, 9) else 1


def _damage(encoded: bytes, kind: str) -> str:
    """Returns what the bytes of a JPEG or PNG suggest is wrong; "" when they look whole."""
    if kind != "jpeg":
        return "" if _PNG_END in encoded else f"the {kind.upper()} is cut short"
    # A thumbnail has an end mark of its own: that of the image follows the last scan's start.
    end = encoded.rfind(b"\xff\xd9")
    if encoded.find(_JPEG_SCAN, max(end, 0)) >= 0:
        return f"the {kind.upper()} is cut short"
    # Most pictures have one scan and no thumbnail, and are looked through but once.
    if not _JPEG_STRAY_MARKER.search(encoded, encoded.find(_JPEG_SCAN) + 2, end):
        return ""
    last = encoded.rfind(_JPEG_SCAN)
    sound = _JPEG_SCAN_HEADER.match(encoded, last)
    return _damaged(kind) if not sound or _JPEG_STRAY_MARKER.search(encoded, last + 2, end) else ""


def _damaged(kind: str) -> str:
    return f"the {kind.upper()}'s pixels are damaged"


def _encode(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    # The pixels are upright now: a viewer that obeyed the old tag would turn them again.
    image.info.pop("exif", None)
    options = {"quality": _JPEG_QUALITY, "subsampling": 0} if kind == "jpeg" else {}
    image.save(file, kind.upper(), **options)
    return file.getvalue()


def _is_inside(name: str) -> bool:
    return bool(name) and not name.startswith("/") and ".." not in name.split("/")


def _folded(name: str) -> str:
    # macOS writes file names in another Unicode form than annotations have.
    return unicodedata.normalize("NFC", name).casefold()

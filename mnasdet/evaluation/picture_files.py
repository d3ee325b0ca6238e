"""Pictures as people have them: files of any kind and orientation. Needs no TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mnasdet.data import ordinary_files, pixels
from mnasdet.errors import DataError


def read_picture(path: str | os.PathLike) -> np.ndarray:
    """Reads a picture as uint8 [height, width, 3], turned as its EXIF orientation says.

    More than 8 bits become 8 as in the records that training reads.

    Raises:
      DataError: why it cannot be read.
    """
    try:
        ordinary_files.check_picture(path)
        with pixels.opened(path) as image:
            plain = pixels.eight_bits(ImageOps.exif_transpose(image))
            return np.array(plain.convert("RGB"))
    except UnidentifiedImageError:
        raise DataError(f"{path}: not a picture that Pillow knows") from None
    # Pillow raises any of these for a damaged file, depending on its format.
    except (OSError, ValueError, SyntaxError, OverflowError) as error:
        raise DataError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None


def pictures_in(folder: str | os.PathLike) -> list[Path]:
    """Returns the pictures in a folder and the folders in it, sorted; hidden files are left out."""
    known = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    return sorted(
        file
        for file in Path(folder).rglob("*")
        if file.suffix.lower() in known and not file.name.startswith(".") and file.is_file()
    )

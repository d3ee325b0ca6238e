"""Pixels of picture files, in 8 bits of red, green and blue, or of grey. Needs no TensorFlow."""

from __future__ import annotations

import os
import warnings
from typing import IO

import numpy as np
from PIL import Image

# 300 MB of decoded pixels: a phone's 12000 x 8300.
MAX_PIXELS = 100_000_000


class TooLargeError(ValueError):
    """The picture has too many pixels."""


def opened(source: str | os.PathLike[str] | IO[bytes]) -> Image.Image:
    """Opens a picture, whose pixels are read later.

    Raises:
      TooLargeError: it has more than `MAX_PIXELS`.
      OSError, SyntaxError, ValueError, OverflowError: it is damaged, or no picture.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit is lower; below is ours.
            image = Image.open(source)
    except Image.DecompressionBombError:
        raise TooLargeError(
            f"is too large: more than {MAX_PIXELS:,} pixels; make it smaller"
        ) from None
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height} pixels"
        image.close()
        raise TooLargeError(f"is too large: {size}, more than {MAX_PIXELS:,}; make it smaller")
    return image


def eight_bits(image: Image.Image) -> Image.Image:
    """Returns the first frame in 8 bits of red, green and blue, or of grey.

    Raises:
      ValueError: the pixels are damaged, or have no range.
    """
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"the image is damaged: {error}") from None
    if not image.mode.startswith(("I", "F")):
        return image.convert("RGB")
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() >= 2**16:
        raise ValueError(f"the image's mode {image.mode!r} has no range; convert it to 8 bits")
    # Cameras and scanners write 10 or 12 bits into 16.
    bits = next(bits for bits in (8, 10, 12, 14, 16) if values.max() < 2**bits)
    return Image.fromarray(np.round(values * (255.0 / (2**bits - 1))).astype(np.uint8))

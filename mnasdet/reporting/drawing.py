"""Draws detections into a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mnasdet.reporting import labels

# Colours of classes by their ids, in turn; all are dark enough for white letters.
_COLOURS = ("#d62728", "#1f77b4", "#2a7f2a", "#9467bd", "#b3590a", "#c2358f", "#117a8b", "#6b4c41")

# Shares of the longer side of a picture, and the least in pixels.
_LINE_SHARE, _LEAST_LINE = 1 / 45, 11
_STROKE_SHARE, _LEAST_STROKE = 1 / 350, 2


def draw(
    image: np.ndarray, boxes: np.ndarray, classes: np.ndarray, texts: Sequence[str]
) -> Image.Image:
    """Returns the picture with boxes and their labels, the first on top.

    Args:
      image: uint8 [height, width, 3].
      boxes: [n, 4] (ymin, xmin, ymax, xmax) in pixels, best first.
      classes: [n] ids, for the colours.
      texts: [n] labels.
    """
    drawn = Image.fromarray(image)
    pen = ImageDraw.Draw(drawn)
    longest = max(drawn.size)
    stroke = max(_LEAST_STROKE, round(longest * _STROKE_SHARE))
    font = ImageFont.load_default(max(_LEAST_LINE, round(longest * _LINE_SHARE)))
    pad = stroke
    ends = [pen.textbbox((0, 0), text, font) for text in texts]
    sizes = [(right + 2 * pad, bottom + 2 * pad) for _, _, right, bottom in ends]
    corners = labels.places(boxes.tolist(), sizes, *drawn.size)
    colours = [_COLOURS[int(class_id) % len(_COLOURS)] for class_id in classes]
    # The best is drawn last, on top. All labels come after all boxes: none is crossed out.
    for (top, left, bottom, right), colour in zip(boxes[::-1].tolist(), colours[::-1], strict=True):
        pen.rectangle((left, top, right, bottom), outline=colour, width=stroke)
    for (x, y), (wide, high), text, colour in zip(corners, sizes, texts, colours, strict=True):
        pen.rectangle((x, y, x + wide, y + high), fill=colour)
        pen.text((x + pad, y + pad), text, fill="white", font=font)
    return drawn

"""Where the labels of boxes stand so that they do not cover one another."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

# Of the height of a line: the mean width of semi-bold letters; those of East Asia are squares.
_LETTER, _WIDE_LETTER = 0.58, 1.0


def text_width(text: str, line: float) -> float:
    """Returns about how wide a text is in a sans-serif font with lines of a height."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return line * (_LETTER * (len(text) - wide) + _WIDE_LETTER * wide)


def places(
    boxes: Sequence[Sequence[float]],
    sizes: Sequence[tuple[float, float]],
    width: float,
    height: float,
) -> list[tuple[float, float]]:
    """Returns the left upper corner of every label, all within the picture.

    A label stands above its box, or else below or inside it, at the first place that covers no
    label before it; where there is none, at the one that covers least.

    Args:
      boxes: (top, left, bottom, right) in pixels, the most important first.
      sizes: (width, height) of the labels.
      width: of the picture, as `height`.
    """
    placed: list[tuple[float, float, float, float]] = []
    for box, size in zip(boxes, sizes, strict=True):
        candidates = [
            (x, y, x + size[0], y + size[1]) for x, y in _corners(box, size, width, height)
        ]
        # min keeps the first of equals.
        placed.append(min(candidates, key=lambda c: sum(_shared(c, other) for other in placed)))
    return [(left, top) for left, top, _, _ in placed]


def _corners(
    box: Sequence[float], size: tuple[float, float], width: float, height: float
) -> Iterator[tuple[float, float]]:
    top, left, bottom, right = box
    for y in (top - size[1], bottom, top, bottom - size[1]):
        # Above the upper edge of the picture is the place inside the box.
        y = max(0.0, min(y, height - size[1]))
        for x in (left, right - size[0]):
            yield max(0.0, min(x, width - size[0])), y


def _shared(a: Sequence[float], b: Sequence[float]) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, across) * max(0.0, down)

"""Where the labels of boxes stand so that they do not cover one another."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence

# Shares of the height of a line: the mean width of semi-bold letters, that of East Asia's letters,
# which are squares, and what the outline of the text adds.
_LETTER, _WIDE_LETTER, _OUTLINE = 0.62, 1.0, 0.3


def text_width(text: str, line: float) -> float:
    """Returns about how wide a text is in a sans-serif font with lines of a height."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)
    return line * (_LETTER * (len(text) - wide) + _WIDE_LETTER * wide + _OUTLINE)


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
    """Yields the best places first: along the box's edges, then a line away, then beside it."""
    top, left, bottom, right = box
    wide, high = size
    aligned = (left, right - wide)
    corners = [(x, y) for y in (top - high, bottom, top, bottom - high) for x in aligned]
    corners += [(x, y) for y in (top - 2 * high, bottom + high) for x in aligned]
    corners += [(x, y) for y in (top, top + high, top + 2 * high) for x in (right, left - wide)]
    for x, y in corners:
        # Above the upper edge of the picture is the place inside the box.
        yield max(0.0, min(x, width - wide)), max(0.0, min(y, height - high))


def _shared(a: Sequence[float], b: Sequence[float]) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, across) * max(0.0, down)

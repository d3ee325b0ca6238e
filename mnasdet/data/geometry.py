"""The upright boxes around other shapes that annotations have."""

from __future__ import annotations

import math
from collections.abc import Sequence

FROM_POLYGON = "boxes made from polygons"
FROM_TURNED_BOX = "turned boxes replaced by the upright boxes around them"

Sides = tuple[float, float, float, float]


def around_points(xs: Sequence[float], ys: Sequence[float]) -> Sides:
    """Returns the box (ymin, xmin, ymax, xmax) around points."""
    return min(ys), min(xs), max(ys), max(xs)


def around_turned_box(box: Sides, radians: float) -> Sides:
    """Returns the box around a box that is turned about its centre."""
    ymin, xmin, ymax, xmax = box
    center_y, center_x = (ymin + ymax) / 2, (xmin + xmax) / 2
    # Absolute: the box around a turned one is the same, whichever way it is turned.
    cosine, sine = abs(math.cos(radians)), abs(math.sin(radians))
    width, height = xmax - xmin, ymax - ymin
    half_width = (width * cosine + height * sine) / 2
    half_height = (width * sine + height * cosine) / 2
    return (
        center_y - half_height,
        center_x - half_width,
        center_y + half_height,
        center_x + half_width,
    )

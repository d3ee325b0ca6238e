"""Overlaps of boxes (ymin, xmin, ymax, xmax)."""

from __future__ import annotations

import numpy as np


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the intersections over unions, [n, m], of boxes [n, 4] and [m, 4]."""
    shared = _shared(a, b)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b)]
    # Two boxes of no area share nothing: the bound keeps 0 / 0 from being NaN.
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)


def covered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns which shares of boxes `a` lie in boxes `b`, [n, m]: COCO's IoU with a crowd."""
    areas = np.prod(a[:, 2:] - a[:, :2], axis=1)
    return _shared(a, b) / np.maximum(areas[:, None], 1e-12)


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return np.prod(np.clip(high - low, 0, None), axis=2)

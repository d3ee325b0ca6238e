"""Fronts of several objectives (Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm:
NSGA-II", 2002)."""

from __future__ import annotations

import numpy as np


def ranks(points: np.ndarray) -> np.ndarray:
    """Returns how many fronts lie before the own one of each point (section III-A).

    Args:
      points: [points, objectives], each objective the more the better.
    """
    no_worse = (points[:, None] >= points[None]).all(axis=2)
    # dominates[i, j]: point i is no worse than j in anything, and better in something.
    dominates = no_worse & ~no_worse.T
    result = np.zeros(len(points), int)
    left = np.ones(len(points), bool)
    while left.any():
        front = left & ~dominates[left].any(axis=0)
        left &= ~front
        result[left] += 1
    return result


def crowding_distances(points: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Returns how far apart each point's neighbours on its front are (section III-B).

    Distances are summed over the objectives, in shares of the front's extent. They are infinite at
    the ends of a front.
    """
    distances = np.zeros(len(points))
    for rank in np.unique(ranks):
        front = np.flatnonzero(ranks == rank)
        for values in points[front].T:
            # Stable: equal values keep their order, and a search its course, on any machine.
            order = front[np.argsort(values, kind="stable")]
            sorted_values = np.sort(values)
            distances[order[[0, -1]]] = np.inf
            extent = sorted_values[-1] - sorted_values[0]
            # A front that is equal in one objective has no distances by it.
            if extent > 0:
                distances[order[1:-1]] += (sorted_values[2:] - sorted_values[:-2]) / extent
    return distances

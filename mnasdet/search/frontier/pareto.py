"""The trade-off between accuracy (more is better) and latency (less is better)."""

from __future__ import annotations

from collections.abc import Sequence


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Returns the indices of the points that no other dominates, fastest first.

    A point is dominated by one that is no worse in both and better in one. Of equal points the
    first stands for all.
    """
    kept: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][1], -points[i][0], i)):
        if not kept or points[i][0] > points[kept[-1]][0]:
            kept.append(i)
    return kept


def hypervolume(points: Sequence[tuple[float, float]], reference: tuple[float, float]) -> float:
    """Returns the area that `points` dominate down to `reference`.

    That is the worst (accuracy, latency) that counts; a point that is not better than it in both
    adds nothing.
    """
    worst_accuracy, worst_latency = reference
    counted = [p for p in points if p[0] > worst_accuracy and p[1] < worst_latency]
    area = 0.0
    covered = worst_accuracy
    for i in frontier(counted):
        accuracy, latency = counted[i]
        area += (accuracy - covered) * (worst_latency - latency)
        covered = accuracy
    return area

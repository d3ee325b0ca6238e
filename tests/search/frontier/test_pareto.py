import numpy as np
import pytest

from mnasdet.search.frontier import pareto


def dominates(p, q):
    return p[0] >= q[0] and p[1] <= q[1] and p != q


def brute_force_frontier(points):
    first = [i for i, p in enumerate(points) if p not in points[:i]]
    kept = [i for i in first if not any(dominates(q, points[i]) for q in points)]
    return sorted(kept, key=lambda i: points[i][1])


def test_frontier_by_hand():
    points = [(0.30, 20.0), (0.25, 10.0), (0.24, 12.0), (0.40, 50.0), (0.40, 60.0), (0.10, 10.0)]
    assert pareto.frontier(points) == [1, 0, 3]


def test_of_equal_points_the_first_is_kept():
    assert pareto.frontier([(0.2, 9.0), (0.3, 9.0), (0.3, 9.0)]) == [1]


def test_frontier_of_none_and_one():
    assert pareto.frontier([]) == []
    assert pareto.frontier([(0.0, 1.0)]) == [0]


def test_frontier_against_brute_force():
    rng = np.random.default_rng(0)
    for size in range(1, 60):
        # Few values: many ties.
        grid = rng.integers(0, 8, (size, 2)) / 8
        points = [(float(accuracy), float(latency)) for accuracy, latency in grid]
        assert pareto.frontier(points) == brute_force_frontier(points)


def test_hypervolume_by_hand():
    # 0.2 wide down to 100 ms from 40 ms, and 0.1 more from 60 ms.
    points = [(0.2, 40.0), (0.3, 60.0), (0.1, 50.0)]
    assert pareto.hypervolume(points, (0.0, 100.0)) == pytest.approx(0.2 * 60 + 0.1 * 40)
    assert pareto.hypervolume(points, (0.1, 100.0)) == pytest.approx(0.1 * 60 + 0.1 * 40)


def test_points_beyond_the_reference_add_nothing():
    points = [(0.2, 40.0), (0.9, 100.0), (0.0, 1.0)]
    assert pareto.hypervolume(points, (0.0, 100.0)) == pytest.approx(0.2 * 60)
    assert pareto.hypervolume([], (0.0, 100.0)) == 0.0


def test_hypervolume_against_counted_cells():
    rng = np.random.default_rng(1)
    cells = np.array([(i, j) for i in range(12) for j in range(12)])
    for _ in range(30):
        points = rng.integers(0, 13, (6, 2))
        # The cell (i, i+1) x (j, j+1) is covered by a point with accuracy > i and latency <= j.
        covered = ((points[:, :1] > cells[:, 0]) & (points[:, 1:] <= cells[:, 1])).any(axis=0)
        area = pareto.hypervolume([(float(a), float(b)) for a, b in points], (0.0, 12.0))
        assert area == covered.sum()

import numpy as np

from mnasdet.search.controllers.controller import Result
from mnasdet.search.controllers.fronts import crowding_distances, ranks
from mnasdet.search.controllers.nsga2 import Nsga2
from mnasdet.search.controllers.random_search import RandomSearch


def test_ranks_by_hand():
    # (5, 1), (3, 3) and (1, 5) are the first front; (3, 2) and (1, 4) lie behind one of it each,
    # (1, 2) behind (3, 2), which is of the second. Equal points do not dominate each other.
    points = np.array([(3, 2), (5, 1), (1, 2), (3, 3), (1, 5), (1, 4), (5, 1)])
    assert ranks(points).tolist() == [1, 0, 2, 0, 0, 1, 0]


def test_crowding_distances_by_hand():
    # One front with extents 10 and 20; the neighbours of the second are 4 and 12 apart, those of
    # the third 9 and 18.
    points = np.array([(0.0, 20.0), (1.0, 18.0), (4.0, 8.0), (10.0, 0.0)])
    distances = crowding_distances(points, np.zeros(4, int))
    np.testing.assert_allclose(distances, [np.inf, 0.4 + 0.6, 0.9 + 0.9, np.inf])
    # Alone on a front, and twice the same point.
    assert crowding_distances(np.array([(1.0, 1.0)]), np.zeros(1, int)).tolist() == [np.inf]
    same = crowding_distances(np.ones((3, 2)), np.zeros(3, int))
    assert np.isinf(same[[0, 2]]).all()
    assert same[1] == 0


def test_begins_like_random_search(toy_space):
    controller = Nsga2(toy_space, seed=3, population_size=8)
    assert controller.propose(8) == RandomSearch(toy_space, seed=3).propose(8)


def tell(controller, points):
    tokens = controller.propose(len(points))
    controller.feedback([Result(t, 0.0, p) for t, p in zip(tokens, points, strict=True)])
    return tokens


def test_the_dominated_leave_first_then_the_crowded(wide_space):
    controller = Nsga2(wide_space, population_size=4)
    tell(controller, [(0.1, -9.0), (0.5, -1.0), (0.9, -5.0), (0.8, -4.9)])
    tell(controller, [(0.7, -3.0)])
    points = sorted(member.objectives for member in controller._population)
    assert points == [(0.5, -1.0), (0.7, -3.0), (0.8, -4.9), (0.9, -5.0)]
    # Now all are on one front, and (0.8, -4.9) stands in the densest crowd.
    tell(controller, [(0.3, -0.5)])
    points = sorted(member.objectives for member in controller._population)
    assert points == [(0.3, -0.5), (0.5, -1.0), (0.7, -3.0), (0.9, -5.0)]


def test_failures_and_known_architectures_stay_out(wide_space):
    controller = Nsga2(wide_space, population_size=4)
    (tokens,) = tell(controller, [(0.5, -1.0)])
    controller.feedback([Result(tokens, 0.0, (0.5, -1.0)), Result((0,) * 10)])
    assert len(controller._population) == 1


def test_spreads_over_the_whole_frontier(wide_space):
    """Accuracy is the sum of the tokens, latency its square: every sum is on the frontier."""
    controller = Nsga2(wide_space, population_size=20)
    for _ in range(80):
        proposals = controller.propose(5)
        controller.feedback(
            [Result(t, 0.0, (float(sum(t)), -(float(sum(t)) ** 2))) for t in proposals]
        )
    sums = {member.objectives[0] for member in controller._population}
    assert len(sums) >= 16
    assert min(sums) <= 5
    assert max(sums) >= 25

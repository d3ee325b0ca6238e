from itertools import pairwise

import pytest

from mnasdet.protos import architecture_pb2
from mnasdet.search.controllers.controller import Result
from mnasdet.search.controllers.partial_order import PartialOrder
from mnasdet.search_spaces.space import Decision, SearchSpace


class Grid(SearchSpace):
    """A depth and a width of seven, and a kind that has no order."""

    has_order = True

    def __init__(self):
        names = ("depth", "width", "kind")
        sizes = (7, 7, 2)
        super().__init__([Decision(n, tuple(range(s))) for n, s in zip(names, sizes, strict=True)])

    def precedes(self, a, b):
        return a[0] <= b[0] and a[1] <= b[1] and a[2] == b[2]

    def _decode(self, values):
        return architecture_pb2.Architecture()

    def _encode(self, architecture):
        return {}


def told(*results, **arguments):
    """A controller that knows (tokens, accuracy, cost) of trained architectures."""
    controller = PartialOrder(Grid(), **{"num_witnesses": 1, **arguments})
    controller.feedback([Result(t, a, (a, -c)) for t, a, c in results])
    return controller


# The second dominates the first, which is the larger in depth and width of another kind.
WASTE = ((5, 5, 0), 0.5, 9.0)
BETTER = ((1, 1, 1), 0.6, 2.0)


def test_an_architecture_that_can_only_be_dominated_is_pruned():
    # (4, 4, 0) is at most as accurate as (5, 5, 0), and costs at least as much as (3, 3, 0).
    controller = told(WASTE, BETTER, ((3, 3, 0), 0.4, 3.0))
    assert controller._is_pruned((4, 4, 0))
    assert controller._is_pruned((3, 5, 0))
    # No deeper than (5, 5, 0), but nothing says that it costs more than BETTER.
    assert not controller._is_pruned((2, 5, 0))
    # Deeper than all; and of the other kind.
    assert not controller._is_pruned((6, 4, 0))
    assert not controller._is_pruned((4, 4, 1))


def test_an_equal_accuracy_and_cost_are_no_gain():
    controller = told(WASTE, ((1, 1, 1), 0.5, 3.0), ((3, 3, 0), 0.4, 3.0))
    assert controller._is_pruned((4, 4, 0))
    controller = told(WASTE, ((1, 1, 1), 0.49, 3.0), ((3, 3, 0), 0.4, 3.0))
    assert not controller._is_pruned((4, 4, 0))


def test_it_is_not_enough_that_something_larger_is_dominated():
    """An architecture that is cheaper than the dominating one may be on the front."""
    controller = told(WASTE, BETTER)
    assert not controller._is_pruned((0, 0, 0))
    assert not controller._is_pruned((4, 4, 0))


def test_the_tightest_bound_counts():
    # At most 0.3 by the second, which is the tighter one; the front has as much at a cost of 1.
    controller = told(WASTE, ((4, 5, 0), 0.3, 8.0), ((0, 0, 1), 0.3, 1.0), ((1, 1, 0), 0.2, 1.5))
    assert controller._is_pruned((2, 2, 0))


def test_several_witnesses_are_needed_where_one_may_be_unlucky():
    known = [WASTE, BETTER, ((3, 3, 0), 0.4, 3.0)]
    assert not told(*known, num_witnesses=2)._is_pruned((4, 4, 0))
    # The second least of the bounds counts: it has to be no more than the front's 0.6.
    assert told(*known, ((5, 6, 0), 0.59, 9.5), num_witnesses=2)._is_pruned((4, 4, 0))
    assert not told(*known, ((5, 6, 0), 0.7, 9.5), num_witnesses=2)._is_pruned((4, 4, 0))


def test_a_cost_that_can_be_computed_is_better_than_a_bound():
    costs = {(4, 4, 0): 2.0, (2, 2, 0): 1.9}
    controller = told(WASTE, BETTER, cost=costs.__getitem__)
    assert controller._is_pruned((4, 4, 0))
    assert not controller._is_pruned((2, 2, 0))


def test_failures_prune_nothing():
    controller = told(BETTER, ((3, 3, 0), 0.4, 3.0))
    controller.feedback([Result((5, 5, 0))])
    assert not controller._is_pruned((4, 4, 0))


def truth(tokens):
    """Deeper and wider is better and dearer; kind 1 is worse at the same cost."""
    depth, width, kind = tokens
    return 1 - 1 / (1 + depth + width) - 0.1 * kind, 1.0 + depth + 2 * width


def search(trials=98, **arguments):
    controller = PartialOrder(Grid(), **{"num_witnesses": 1, **arguments})
    proposals = []
    for _ in range(trials):
        proposals += controller.propose(1)
        accuracy, cost = truth(proposals[-1])
        controller.feedback([Result(proposals[-1], accuracy, (accuracy, -cost))])
    return proposals


def test_nothing_on_the_front_is_pruned_where_the_assumption_holds():
    # Each step in depth costs less than one in width and gains as much.
    front = {(depth, 0, 0) for depth in range(7)} | {(6, width, 0) for width in range(7)}
    for seed in range(3):
        found = set(search(seed=seed))
        assert front <= found
        assert len(found) < 70


def test_a_share_of_the_pruned_is_tried_all_the_same():
    pruned, mixed, whole = (set(search(trust=trust)) for trust in (1.0, 0.7, 0.0))
    assert len(pruned) < len(mixed) < len(whole)


def test_no_architecture_is_proposed_twice_while_there_are_others():
    assert len(set(search(trials=75, trust=0.0))) == 75


def test_where_all_others_are_pruned_it_repeats_what_costs_nothing():
    proposals = search(trials=98)
    assert proposals[-1] in proposals[:-1]


def test_children_are_of_the_front():
    controller = told(((3, 3, 0), 0.5, 5.0), ((0, 6, 1), 0.4, 9.0), num_starts=0)
    (child,) = controller.propose(1)
    assert sum(a != b for a, b in zip(child, (3, 3, 0), strict=True)) == 1


def test_it_begins_with_the_given_ones_and_goes_on_from_them():
    controller = PartialOrder(Grid(), num_starts=5, starts=[(3, 3, 0)])
    first, *others = controller.propose(4)
    assert first == (3, 3, 0)
    # Their results are not known yet.
    for child in others:
        assert sum(a != b for a, b in zip(child, first, strict=True)) == 1


def test_a_space_without_an_order_is_told_of_once(toy_space, caplog):
    controller = PartialOrder(toy_space)
    controller.feedback([Result(t, 0.5, (0.5, -1.0)) for t in controller.propose(12)])
    controller.propose(12)
    assert [r.getMessage() for r in caplog.records] == [
        "the search space has no order: nothing is pruned"
    ]


@pytest.mark.parametrize(
    "arguments", [{}, {"trust": 0.5}, {"cost": lambda tokens: truth(tokens)[1]}]
)
def test_a_history_restores_it(arguments):
    proposals = search(trials=40, seed=1, **arguments)
    assert proposals == search(trials=40, seed=1, **arguments)
    assert all(a != b for a, b in pairwise(proposals))

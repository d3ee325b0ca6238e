from mnasdet.search.controllers.controller import Result
from mnasdet.search.controllers.random_search import RandomSearch
from mnasdet.search.controllers.regularized_evolution import RegularizedEvolution


def differences(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


def test_begins_like_random_search(toy_space):
    evolution = RegularizedEvolution(toy_space, seed=3, population_size=8)
    assert evolution.propose(8) == RandomSearch(toy_space, seed=3).propose(8)


def test_children_are_mutations_of_the_best_of_the_latest(wide_space):
    # Every tournament of 50 finds the best of 4.
    evolution = RegularizedEvolution(wide_space, population_size=4, tournament_size=50)
    old_best, *others = evolution.propose(4)
    rewards = [0.9, 0.1, 0.2, 0.3]
    evolution.feedback([Result(*r) for r in zip([old_best, *others], rewards, strict=True)])
    children = evolution.propose(6)
    assert {differences(child, old_best) for child in children} == {1}
    # The best is the oldest and dies first.
    evolution.feedback([Result(children[0], 0.05)])
    assert {differences(child, others[2]) for child in evolution.propose(6)} == {1}


def test_a_failed_trial_is_no_parent(wide_space):
    evolution = RegularizedEvolution(wide_space, population_size=2, tournament_size=50)
    failed, parent = evolution.propose(2)
    evolution.feedback([Result(failed), Result(parent, -5.0)])
    assert {differences(child, parent) for child in evolution.propose(6)} == {1}

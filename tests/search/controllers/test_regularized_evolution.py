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


def test_a_child_has_two_parents_or_one(wide_space):
    def of_neither_and_of_second(crossover_probability):
        evolution = RegularizedEvolution(
            wide_space,
            population_size=2,
            tournament_size=1,
            crossover_probability=crossover_probability,
        )
        evolution.feedback([Result((0,) * 10, 0.1), Result((1,) * 10, 0.1)])
        children = evolution.propose(42)[2:]
        return [(sum(t > 1 for t in c), sum(t == 1 for t in c)) for c in children]

    # One mutation, which may lead to the other parent.
    alone = of_neither_and_of_second(0)
    assert {second in (0, 1, 9, 10) and neither <= 1 for neither, second in alone} == {True}
    both = of_neither_and_of_second(1)
    assert max(neither for neither, _ in both) == 1
    # Half of the pairs are of one architecture; of the others half of the decisions are.
    assert sum(2 <= second <= 8 for _, second in both) > 10

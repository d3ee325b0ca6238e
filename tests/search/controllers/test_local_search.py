import numpy as np

from mnasdet.search.controllers.controller import Result
from mnasdet.search.controllers.local_search import LocalSearch


def differences(a, b):
    return sum(x != y for x, y in zip(a, b, strict=True))


def run(controller, reward, steps, late=1):
    """The proposals, each with its reward, where results come `late` proposals later."""
    history, pending = [], controller.propose(late)
    for _ in range(steps):
        tokens = pending.pop(0)
        history.append((tokens, reward(tokens)))
        controller.feedback([Result(*history[-1])])
        pending += controller.propose(1)
    return history


def test_climbs_to_the_top_in_single_steps(wide_space):
    search = LocalSearch(wide_space, num_starts=3, believed_gain=1)
    history = run(search, lambda tokens: float(sum(tokens)), steps=200)
    best = max(history[:3], key=lambda pair: pair[1])
    for tokens, reward in history[3:]:
        if best[1] == 30:
            break
        assert differences(tokens, best[0]) == 1
        best = max(best, (tokens, reward), key=lambda pair: pair[1])
    assert best[1] == 30


def test_at_the_top_all_neighbours_are_tried_once_before_it_starts_anew(wide_space):
    top = (3,) * 10
    search = LocalSearch(wide_space, num_starts=1, believed_gain=1)
    history = run(search, lambda tokens: float(sum(tokens)), steps=300)
    arrival = next(i for i, (tokens, _) in enumerate(history) if tokens == top)
    around = [tokens for tokens, _ in history[arrival + 1 : arrival + 31]]
    assert len(set(around)) == 30
    assert {differences(tokens, top) for tokens in around} == {1}
    assert differences(history[arrival + 31][0], top) > 1


def test_while_results_are_late_the_next_climb_begins(wide_space):
    """Its random architectures are not wasted: they are where that climb starts."""
    search = LocalSearch(wide_space, num_starts=4)
    history = run(search, lambda tokens: float(sum(tokens)), steps=400, late=6)
    assert (3,) * 10 in [tokens for tokens, _ in history]
    assert all(np.isfinite(reward) for _, reward in history)


def test_what_has_to_be_beaten_goes_up_by_a_share_of_every_gain(wide_space):
    def moved_on(reward):
        """From a start with reward 1 to a neighbour with 3 to one of its own with `reward`."""
        search = LocalSearch(wide_space, num_starts=1, believed_gain=0.5)
        (start,) = search.propose(1)
        search.feedback([Result(start, 1.0)])
        (lucky,) = search.propose(1)
        search.feedback([Result(lucky, 3.0)])
        (better,) = search.propose(1)
        search.feedback([Result(better, reward)])
        return {differences(tokens, better) for tokens in search.propose(20)} == {1}

    # The lucky one is believed to be worth 2.
    assert moved_on(2.1)
    assert not moved_on(1.9)

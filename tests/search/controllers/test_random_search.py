from collections import Counter

from mnasdet.search.controllers.controller import Result
from mnasdet.search.controllers.random_search import RandomSearch


def test_proposals_cover_the_space_evenly(toy_space):
    counts = Counter(RandomSearch(toy_space).propose(4800))
    assert len(counts) == toy_space.cardinality() == 24
    # 200 expected of each; 5 standard deviations.
    assert all(130 < count < 270 for count in counts.values())


def test_proposals_depend_on_the_seed_alone(toy_space):
    whole = RandomSearch(toy_space, seed=3).propose(12)
    in_parts = RandomSearch(toy_space, seed=3)
    parts = [in_parts.propose(5)]
    in_parts.feedback([Result(tokens, 1.0) for tokens in parts[0]])
    parts.append(in_parts.propose(7))
    assert parts[0] + parts[1] == whole
    assert RandomSearch(toy_space, seed=4).propose(12) != whole


def test_proposals_are_permanent(toy_space):
    """A change here changes every search of an old seed: say so in the changelog, then take the
    new tokens over."""
    assert RandomSearch(toy_space, seed=0).propose(4) == [
        (1, 0, 2, 0),
        (2, 1, 0, 3),
        (0, 1, 2, 0),
        (2, 1, 0, 1),
    ]

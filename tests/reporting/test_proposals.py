import numpy as np
import pytest

from mnasdet import config
from mnasdet.reporting import proposals
from mnasdet.reporting.proposals import SlidingEntropy
from mnasdet.search_spaces.space import Decision
from tests.search_spaces.architectures import mnasfpn_space

DECISIONS = [Decision("a", (3, 5)), Decision("b", ("x", "y", "z", "w")), Decision("c", (7,))]


def entropy(counts, choices):
    """By the definition, in units of the most that there can be."""
    shares = np.array(counts) / np.sum(counts)
    return -sum(p * np.log(p) for p in shares if p) / np.log(choices)


def test_by_the_definition():
    sliding = SlidingEntropy(DECISIONS, window=4)
    for tokens in [(0, 0, 0), (1, 1, 0), (0, 2, 0), (0, 2, 0)]:
        sliding.add(tokens)
    expected = [entropy([3, 1], 2), entropy([1, 1, 2, 0], 4), 0.0]
    assert sliding.by_decision() == pytest.approx(expected)
    # A decision with a single choice does not count.
    assert sliding.mean() == pytest.approx(np.mean(expected[:2]))
    assert sliding.shares()[1].tolist() == [0.25, 0.25, 0.5, 0.0]


def test_from_agreement_to_every_choice_as_frequent():
    sliding = SlidingEntropy(DECISIONS, window=4)
    assert sliding.mean() == 0.0
    for token in (0, 0, 0, 0):
        sliding.add((0, token, 0))
    assert sliding.mean() == pytest.approx(0.0)
    for token in (0, 1, 2, 3):
        sliding.add((token % 2, token, 0))
    assert sliding.by_decision() == pytest.approx([1.0, 1.0, 0.0])


def test_what_slides_is_what_a_fresh_window_has():
    rng = np.random.default_rng(0)
    tokens = [(int(rng.integers(2)), int(rng.integers(4)), 0) for _ in range(500)]
    sliding = SlidingEntropy(DECISIONS, window=30)
    for proposal in tokens:
        sliding.add(proposal)
    fresh = SlidingEntropy(DECISIONS, window=30)
    for proposal in tokens[-30:]:
        fresh.add(proposal)
    assert sliding.by_decision() == pytest.approx(fresh.by_decision())


def test_nothing_to_decide():
    sliding = SlidingEntropy([])
    sliding.add(())
    assert sliding.mean() == 0.0


def test_windows_of_few_trials_are_half_of_them():
    assert [proposals.window_of(n) for n in (1, 4, 12, 60, 10_000)] == [2, 2, 6, 30, 30]
    entropies = proposals.entropies([(0, 0, 0)] * 3 + [(1, 0, 0)], DECISIONS, 2)
    assert entropies == pytest.approx([0.0, 0.0, 0.5])


def test_uniform_sampling_is_close_to_but_not_at_1():
    space = mnasfpn_space(config.load_architecture("mobilenet_v2_mnasfpn"))
    assert 0.85 < proposals.uniform_entropy(space, 30) < 0.97

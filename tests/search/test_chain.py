"""The stages that search.json tells of."""

import pytest

from mnasdet.search import chain
from mnasdet.search.trials.trial_store import Trial, TrialState


def trial(number, tokens=(), cost=1.0, state=TrialState.COMPLETE):
    metrics = {"multiply_adds": 2e9 + number}
    return Trial(number, tokens, "", str(number), 0, state, cost=cost, metrics=metrics)


TRIALS = [trial(0, cost=9.0), trial(1, cost=8.0), trial(2, (1, 5)), trial(3, (0, 5))]


def chained(*units, unit, **fields):
    stages = [{"first": 2 * place, "unit": own} for place, own in enumerate(units)]
    return chain.from_description({"stages": stages, "unit": unit, **fields})


@pytest.mark.parametrize("description", [None, {}, {"unit": "ms"}])
def test_most_searches_have_one_stage(description):
    single = chain.from_description(description)
    assert not single.is_chained
    assert {single.stage(one) for one in TRIALS} == {1}
    assert single.final(TRIALS) == single.aligned(TRIALS) == TRIALS
    assert single.parent(TRIALS[3]) is None


def test_a_trial_of_the_second_stage_has_a_parent_in_the_first():
    two = chained("ms", "ms", unit="ms", groups=[1, 0])
    assert [two.stage(one) for one in TRIALS] == [1, 1, 2, 2]
    assert [two.parent(one) for one in TRIALS] == [None, None, 0, 1]
    assert two.of_stage(TRIALS, 1) == TRIALS[:2]
    assert two.aligned(TRIALS) == TRIALS


def test_costs_of_two_kinds_become_multiply_adds():
    two = chained("ms", "G multiply-adds", unit="G multiply-adds")
    costs = [one.cost for one in two.aligned(TRIALS)]
    assert costs == pytest.approx([2.0, 2.000000001, 2.000000002, 2.000000003])
    # Milliseconds of two sources do not compare either.
    two = chained("ms", "ms", unit="G multiply-adds")
    assert [one.cost for one in two.aligned(TRIALS)] == costs


def test_the_result_is_of_the_last_stage_that_has_one():
    two = chained("ms", "ms", unit="ms")
    assert two.final(TRIALS) == TRIALS[2:]
    failed = [trial(n, state=TrialState.FAILED) for n in (2, 3)]
    assert two.final([*TRIALS[:2], *failed]) == TRIALS[:2]

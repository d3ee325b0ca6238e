"""Failed trials that are trained once more."""

import pytest

from mnasdet.errors import UserError
from mnasdet.search.child import Outcome
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.trials import reopening
from mnasdet.search.trials.trial_store import TrialState
from tests.search import cheap_children, search_runs

FAILING = {3, 4}


def search(path, run_child, controller="ppo"):
    return search_runs.search(controller, path, ThisProcess(run_child))


def fails_at_times(task):
    if task.seed - 7 in FAILING:
        return Outcome(error="training diverged")
    return cheap_children.accuracy(task)


@pytest.mark.parametrize("controller", search_runs.CONTROLLERS)
def test_a_reopened_trial_gets_its_result_and_the_others_stay(controller, tmp_path):
    path = tmp_path / "trials.db"
    before = search(path, fails_at_times, controller).run(30)
    one = search(path, cheap_children.accuracy, controller)
    one.store.describe({"max_pending_trials": one.max_pending})
    reopened = reopening.reopen(one.store, reopening.failed(before))
    assert {trial.number for trial in reopened} >= FAILING
    after = one.run(30)
    for old, new in zip(before, after, strict=True):
        if old.state is TrialState.FAILED:
            assert new.state is TrialState.COMPLETE
            assert new.told_failed == (new.number + 6 <= 29)
        else:
            assert old == new
    # The controller goes on from what it was told: a longer search begins like this one.
    longer = search(path, cheap_children.accuracy, controller).run(40)
    assert longer[:30] == after
    one.store.close()


def test_all_of_a_second_stage_were_told_of_a_failure_in_the_first(tmp_path):
    one = search(tmp_path / "trials.db", fails_at_times, "random")
    one.run(8)
    stages = [{"first": 0}, {"first": 6}]
    one.store.describe({"max_pending_trials": one.max_pending, "stages": stages})
    # By the number alone nothing was proposed knowing of trial 3: 3 + 6 are more than 7.
    for trial in reopening.reopen(one.store, sorted(FAILING)):
        assert trial.told_failed == (trial.number < 6)
    one.store.close()


def test_only_failed_trials_are_reopened(tmp_path):
    one = search(tmp_path / "trials.db", fails_at_times)
    trials = one.run(8)
    complete = next(t.number for t in trials if t.state is TrialState.COMPLETE)
    with pytest.raises(UserError, match=f"trial {complete} is complete; only failed ones"):
        reopening.reopen(one.store, [3, complete])
    with pytest.raises(UserError, match="no trial 99: search 'search' holds trials 0 to 7"):
        reopening.reopen(one.store, [99])
    assert one.store.trials() == trials
    one.store.close()

"""Whole searches that are killed, and children that end in every bad way."""

import pytest

from mnasdet.errors import UserError
from mnasdet.search.attempts import EnvironmentFailedError
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.executors.worker_processes import WorkerProcesses
from mnasdet.search.trials.trial_store import TrialState, TrialStore
from tests.forked import Forked
from tests.search import cheap_children, interruptions, search_runs
from tests.search.executors.cheap_workers import wait_for


@pytest.mark.parametrize("controller", search_runs.CONTROLLERS)
def test_killed_ten_times_it_makes_the_trials_of_an_uninterrupted_one(controller, tmp_path):
    expected = interruptions.uninterrupted(controller, tmp_path / "whole.db")
    kills = [interruptions.kill_group] * 10
    assert interruptions.interrupted(controller, tmp_path / "killed.db", kills) == expected
    assert len(expected) == search_runs.NUM_TRIALS


def test_four_bad_ends_are_four_failed_trials_with_four_reasons(tmp_path):
    executor = WorkerProcesses(
        2,
        run_child=cheap_children.ends_badly,
        prepare=cheap_children.prepare_nothing,
        max_memory_mb=250,
        max_trial_seconds=3,
    )
    try:
        trials = search_runs.search("random", tmp_path / "trials.db", executor).run(16)
    finally:
        executor.close()
    bad = {trial.number: trial for trial in trials if trial.state is not TrialState.COMPLETE}
    assert {trial.state for trial in bad.values()} == {TrialState.FAILED}
    # Duplicates of failed ones fail with the same reason.
    reasons = {n: trial.error for n, trial in bad.items() if trial.duplicate_of is None}
    assert reasons.pop(3).startswith("out of memory: used ")
    assert reasons == {
        5: "DetectionBoxes_Precision/mAP is nan",
        8: "took longer than 3 s",
        11: "worker lost: killed by SIGSEGV",
    }


def test_a_search_whose_workers_cannot_start_goes_on_when_they_are_mended(tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    broken.touch()
    monkeypatch.setenv("BROKEN", str(broken))
    expected = interruptions.uninterrupted("ppo", tmp_path / "whole.db")[:16]

    def run():
        executor = WorkerProcesses(
            2, run_child=cheap_children.accuracy, prepare=cheap_children.prepare_if_whole
        )
        search = search_runs.search("ppo", tmp_path / "trials.db", executor)
        search.pauses = [0.0]
        try:
            return search.run(16)
        finally:
            executor.close()

    with pytest.raises(EnvironmentFailedError, match="trained: worker lost: exit status 1"):
        run()
    store = TrialStore(tmp_path / "trials.db")
    assert {trial.state for trial in store.trials()} == {TrialState.PENDING}
    store.close()
    broken.unlink()
    assert interruptions.timeless(run()) == expected


@pytest.mark.parametrize("seed", [7, 18])
def test_a_last_child_that_always_crashes_has_failed(seed, tmp_path):
    """Seed 18 crashes: as trial 11, and as trial 0, where nothing shows that it is to blame."""
    executor = WorkerProcesses(
        1,
        run_child=cheap_children.crashes_if_seeded_so,
        prepare=cheap_children.prepare_nothing,
    )
    search = search_runs.search("random", tmp_path / "trials.db", executor)
    search.pauses, search.seed = [0.0], seed
    try:
        if seed == 18:
            with pytest.raises(EnvironmentFailedError, match="SIGSEGV"):
                search.run(1)
            return
        trials = search.run(12)
    finally:
        executor.close()
    assert [trial.error for trial in trials] == [None] * 11 + ["worker lost: killed by SIGSEGV"]


def test_a_search_that_two_processes_begin_is_made_by_one(tmp_path):
    """From two folders, say, with one database."""
    path = tmp_path / "trials.db"
    first = Forked(["-m", "tests.search.search_runs", "random", str(path)])
    store = TrialStore(path)
    wait_for(store.trials)
    second = search_runs.search("random", path, ThisProcess(cheap_children.accuracy))
    with pytest.raises(UserError, match=f"is being run by process {first.pid} on"):
        second.run(search_runs.NUM_TRIALS)
    assert first.wait() == 0
    expected = interruptions.uninterrupted("random", tmp_path / "whole.db")
    assert interruptions.timeless(store.trials()) == expected
    store.close()

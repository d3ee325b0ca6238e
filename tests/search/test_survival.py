"""Whole searches that are killed, and children that end in every bad way."""

import pytest

from mnasdet.search.executors.worker_processes import WorkerProcesses
from mnasdet.search.trial_store import TrialState
from tests.search import cheap_children, interruptions, search_runs


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

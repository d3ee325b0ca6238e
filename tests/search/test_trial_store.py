"""The trial store on a real SQLite file."""

import dataclasses

import pytest

from mnasdet.errors import UserError
from mnasdet.search.trial_store import Trial, TrialState, TrialStore, now


def trial(number, **fields):
    return Trial(
        number=number, tokens=(1, 2, 3), architecture="name: 'é'", key="k", seed=9, **fields
    )


def test_what_goes_in_comes_out(tmp_path):
    store = TrialStore(tmp_path / "trials.db")
    trials = [
        trial(1, state=TrialState.FAILED, error="why", duplicate_of=0),
        trial(
            0,
            state=TrialState.COMPLETE,
            metrics={"mAP": 0.25},
            latency_ms=1.5,
            reward=0.125,
            worker="w",
            started=now(),
            finished=now(),
        ),
    ]
    store.add(trials)
    store.close()
    assert TrialStore(tmp_path / "trials.db").trials() == trials[::-1]


def test_update_changes_the_row_and_returns_the_trial(tmp_path):
    store = TrialStore(tmp_path / "trials.db")
    store.add([trial(0), trial(1)])
    changed = store.update(trial(1), state=TrialState.RUNNING, metrics={"a": 1})
    assert changed == dataclasses.replace(trial(1), state=TrialState.RUNNING, metrics={"a": 1})
    assert store.trials() == [trial(0), changed]


def test_all_of_a_batch_or_none(tmp_path):
    store = TrialStore(tmp_path / "trials.db")
    store.add([trial(1)])
    with pytest.raises(Exception, match="UNIQUE"):
        store.add([trial(0), trial(1)])
    assert store.trials() == [trial(1)]


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "trials.db"
    path.write_text("no database, but long enough to be taken for one" * 20)
    with pytest.raises(UserError, match="cannot be used as a trial store: .*not a database"):
        TrialStore(path)

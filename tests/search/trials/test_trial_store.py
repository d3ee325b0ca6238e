"""The trial store on real databases, an SQLite file and a PostgreSQL server."""

import dataclasses
import datetime
import json
import math
import multiprocessing
import sqlite3
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import pytest
import sqlalchemy as sa

from mnasdet.errors import UserError
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore, list_searches, now


def trial(number, **fields):
    return Trial(
        number=number, tokens=(1, 2, 3), architecture="name: 'é'", key="k", seed=9, **fields
    )


def test_what_goes_in_comes_out(location):
    store = TrialStore(location)
    trials = [
        trial(2, state=TrialState.REJECTED, error="5.1 M params, more than 5", note="größer 🙂"),
        trial(1, state=TrialState.FAILED, error="why", duplicate_of=0),
        trial(
            0,
            state=TrialState.COMPLETE,
            metrics={"mAP": 0.1 + 0.2, "params": 2503047},
            cost=1.5,
            reward=1 / 3,
            worker="w",
            started=now(),
            finished=now(),
        ),
    ]
    store.add(trials)
    store.close()
    store = TrialStore(location)
    assert store.trials() == trials[::-1]
    assert store.trial(1) == trials[1]
    store.close()


def test_extreme_values_come_out_too(location):
    extreme = dataclasses.replace(
        trial(2**31 - 1),
        tokens=(),
        seed=2**63 - 1,
        cost=5e-324,
        reward=-1.7976931348623157e308,
        started=datetime.datetime(1, 1, 1),
        finished=datetime.datetime(9999, 12, 31, 23, 59, 59, 999999),
        error="",
        note='\'; DROP TABLE trials; --\n\t"%s" :a ? \\',
    )
    store = TrialStore(location)
    store.add([extreme])
    assert store.trials() == [extreme]
    store.close()


def test_update_changes_the_row_and_returns_the_trial(location):
    store = TrialStore(location)
    store.add([trial(0), trial(1)])
    changed = store.update(trial(1), state=TrialState.RUNNING, metrics={"a": 1}, note="n")
    expected = dataclasses.replace(trial(1), state=TrialState.RUNNING, metrics={"a": 1}, note="n")
    assert changed == expected
    assert store.trials() == [trial(0), changed]
    assert store.update(changed, note=None) == dataclasses.replace(changed, note=None)
    assert store.trial(1).note is None
    store.close()


def test_all_of_a_batch_or_none(location):
    store = TrialStore(location)
    store.add([trial(1)])
    with pytest.raises(UserError, match="search 'search' holds one of trials 0 to 1 already"):
        store.add([trial(0), trial(1)])
    assert store.trials() == [trial(1)]
    store.close()


def test_a_trial_that_is_not_there(location):
    store = TrialStore(location)
    with pytest.raises(UserError, match="no trial 0: search 'search' holds no trials"):
        store.trial(0)
    store.add([trial(0), trial(1), trial(2)])
    with pytest.raises(UserError, match="no trial 3: search 'search' holds trials 0 to 2"):
        store.trial(3)
    with pytest.raises(UserError, match="no trial 3: search 'search' holds trials 0 to 2"):
        store.update(trial(3), note="lost")
    with pytest.raises(TypeError, match="nota"):
        store.update(trial(0), nota="misspelt")
    assert store.trials() == [trial(0), trial(1), trial(2)]
    store.close()


def test_what_only_one_database_would_keep_is_the_same_on_both(location):
    """NaN, numbers of numpy, a time with a zone, text that is no UTF-8."""
    zone = datetime.timezone(datetime.timedelta(hours=2))
    store = TrialStore(location)
    store.add([trial(0)])
    changed = store.update(
        trial(0),
        metrics={"a": math.nan, "b": math.inf, "c": 1.0},
        reward=np.float32(0.5),
        cost=np.float64(0.25),
        started=datetime.datetime(2025, 1, 1, 1, 30, tzinfo=zone),
        error="NUL \0 and half a pair \udc80",
    )
    (stored,) = store.trials()
    for seen in (changed, stored):
        assert math.isnan(seen.metrics["a"])
        assert math.isnan(seen.metrics["b"])
        assert seen.metrics["c"] == 1.0
        assert (seen.reward, seen.cost) == (0.5, 0.25)
        assert type(seen.reward) is type(seen.cost) is float
        assert seen.started == datetime.datetime(2024, 12, 31, 23, 30)
        assert seen.error == "NUL \N{REPLACEMENT CHARACTER} and half a pair ?"
    store.close()


@pytest.mark.parametrize("field", ["reward", "cost", "accuracy"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_is_turned_away(field, value, tmp_path):
    store = TrialStore(tmp_path / "trials.db")
    store.add([trial(0)])
    with pytest.raises(ValueError, match=f"an accuracy, cost or reward of {value} is not allowed"):
        store.update(trial(0), **{field: value})
    assert store.trials() == [trial(0)]
    store.close()


def test_other_programs_can_read_it(tmp_path):
    """States by name and JSON to the letter of its standard, as any tool for SQLite shows them."""
    store = TrialStore(tmp_path / "trials.db", "a search")
    store.add([trial(0, state=TrialState.REJECTED, metrics={"mAP": math.nan})])
    store.close()
    with sqlite3.connect(tmp_path / "trials.db") as connection:
        row = connection.execute("SELECT number, tokens, state, metrics FROM trials").fetchone()
        assert row == (0, "[1, 2, 3]", "REJECTED", '{"mAP": null}')
        assert connection.execute("SELECT name FROM searches").fetchall() == [("a search",)]
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(4,)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_searches_of_one_database_are_apart(location):
    first, second = TrialStore(location, "first"), TrialStore(location, "second näme")
    first.add([trial(0, note="first"), trial(1)])
    second.add([trial(0, note="second")])
    second.update(trial(0), reward=0.5, state=TrialState.COMPLETE)
    assert first.trials() == [trial(0, note="first"), trial(1)]
    assert second.trial(0).reward == 0.5
    with pytest.raises(UserError, match="no trial 1: search 'second näme' holds trials 0 to 0"):
        second.update(trial(1), note="of the other search")
    first.describe({"seed": 1, "cardinality": 10**30, "versions": {"mnasdet": "é"}})
    assert first.description() == {"seed": 1, "cardinality": 10**30, "versions": {"mnasdet": "é"}}
    assert second.description() is None
    first.close()
    second.close()


def test_the_searches_of_a_database(location):
    before = now()
    store = TrialStore(location, "b")
    store.add(
        [
            trial(0, state=TrialState.COMPLETE, reward=-0.5),
            trial(1, state=TrialState.COMPLETE, reward=-0.25, duplicate_of=0),
            trial(2, state=TrialState.FAILED, duplicate_of=0),
            trial(3),
        ]
    )
    store.close()
    TrialStore(location, "a").close()
    full, empty = list_searches(location)
    assert (full.name, empty.name) == ("b", "a")
    assert full.counts == {
        TrialState.COMPLETE: 2,
        TrialState.FAILED: 1,
        TrialState.PENDING: 1,
    }
    assert (full.num_trials, full.duplicates, full.best_reward) == (4, 2, -0.25)
    assert (empty.counts, empty.num_trials, empty.best_reward) == ({}, 0, None)
    assert before <= full.created <= empty.created <= now()


def test_without_create_nothing_is_made(location):
    with pytest.raises(UserError, match="no such file|holds no trials"):
        TrialStore(location, create=False)
    with pytest.raises(UserError, match="no such file|holds no trials"):
        list_searches(location)
    for name in ("mnasfpn", "nas_fpn"):
        TrialStore(location, name).close()
    with pytest.raises(UserError, match=r"no search 'nasfpn' in .*; one of nas_fpn, mnasfpn$"):
        TrialStore(location, "nasfpn", create=False)
    assert len(list_searches(location)) == 2
    TrialStore(location, "nas_fpn", create=False).close()


def test_without_create_no_file_is_left_behind(tmp_path):
    with pytest.raises(UserError, match=r"trials.db: .*no such file"):
        TrialStore(tmp_path / "trials.db", create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\0b"])
def test_a_search_name_is_printable(name, tmp_path):
    with pytest.raises(UserError, match="printable characters are needed"):
        TrialStore(tmp_path / "trials.db", name)


def test_a_url_of_a_file(tmp_path):
    """And a file whose name would mean something in a URL."""
    path = tmp_path / "a?b=c #%20.db"
    TrialStore(path).close()
    assert path.exists()
    TrialStore(f"sqlite:///{tmp_path}/b.db").close()
    assert [summary.name for summary in list_searches(tmp_path / "b.db")] == ["search"]


def test_threads_write_through_one_store(location):
    store = TrialStore(location)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: write(store, number), range(80)))
    assert [trial.reward for trial in store.trials()] == list(range(80))
    store.close()


def write(store, number):
    """Writes a trial as a search does."""
    store.add([trial(number)])
    running = store.update(trial(number), state=TrialState.RUNNING, started=now())
    store.update(running, state=TrialState.COMPLETE, reward=float(number), finished=now())


def write_many(location, search_name, numbers):
    """Opens a store, which it may have to make, and fills it."""
    store = TrialStore(location, search_name)
    for number in numbers:
        write(store, number)
    store.close()


def test_processes_write_at_once(location):
    """Two searches with two processes each, which all find no tables at their start."""
    with ProcessPoolExecutor(4, multiprocessing.get_context("spawn")) as pool:
        jobs = [
            pool.submit(write_many, location, name, range(start, 60, 2))
            for name in ("first", "second")
            for start in (0, 1)
        ]
        for job in jobs:
            job.result()
    for name in ("first", "second"):
        store = TrialStore(location, name, create=False)
        assert [trial.reward for trial in store.trials()] == list(range(60))
        store.close()


def test_metrics_are_json_on_the_server(postgresql):
    """The server's own reader takes what the store writes."""
    url = postgresql.new_database()
    store = TrialStore(url)
    store.add([trial(0, metrics={"mAP": 0.5, "none": math.nan})])
    store.close()
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        query = "SELECT CAST(metrics AS jsonb), CAST(tokens AS jsonb) FROM trials"
        row = connection.execute(sa.text(query)).one()
    engine.dispose()
    assert json.loads(json.dumps(row[0])) == {"mAP": 0.5, "none": None}
    assert row[1] == [1, 2, 3]

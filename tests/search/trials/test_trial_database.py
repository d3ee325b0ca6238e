"""Tests that a fault of an SQLite file gives one readable line, and loses nothing."""

import contextlib
import os
import sqlite3
import tempfile
import time
from pathlib import Path

import pytest
import sqlalchemy as sa

from mnasdet.search.trials.trial_store import TrialState, TrialStore, list_searches
from tests.search.store_errors import trial, user_error


def test_a_file_that_is_no_database(tmp_path):
    path = tmp_path / "trials.db"
    path.write_text("no database, but long enough to be taken for one" * 20)
    for open_store in (TrialStore, list_searches):
        with user_error("trials.db: .*not a database"):
            open_store(path)
    assert path.read_text().startswith("no database")


def test_a_folder_and_a_folder_that_is_missing(tmp_path):
    with user_error("is a folder"):
        TrialStore(tmp_path)
    with user_error("unable to open .*; its folder is missing"):
        TrialStore(tmp_path / "missing" / "trials.db")


def test_a_damaged_file(tmp_path):
    path = tmp_path / "trials.db"
    store = TrialStore(path)
    store.add([trial(number, note="x" * 3000) for number in range(20)])
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with user_error("malformed"):
        TrialStore(path)


def test_a_locked_file(tmp_path):
    path = tmp_path / "trials.db"
    store = TrialStore(path, timeout_seconds=0.02)
    store.add([trial(0)])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with user_error("is locked; another program holds it"):
            store.add([trial(1)])
        with user_error("is locked"):
            store.update(trial(0), note="late")
        # Who only reads need not wait.
        assert store.trials() == [trial(0)]
        assert TrialStore(path, create=False).trials() == [trial(0)]
        other.execute("ROLLBACK")
    store.add([trial(1)])
    store.update(trial(0), note="late")
    assert store.trials() == [trial(0, note="late"), trial(1)]
    store.close()


def test_a_lock_that_goes_away_in_time(tmp_path, monkeypatch):
    path = tmp_path / "trials.db"
    store = TrialStore(path, timeout_seconds=0.02)
    pauses = []
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")

        def pause(seconds):
            pauses.append(seconds)
            if len(pauses) == 2:
                other.execute("ROLLBACK")

        monkeypatch.setattr(time, "sleep", pause)
        store.add([trial(0)])
    assert pauses == [0.02, 0.02]
    assert store.trials() == [trial(0)]
    store.close()


@pytest.fixture
def disk():
    """Its "pages" are how many an SQLite file of this test may have."""
    limit = {"pages": 2**30}

    def apply(connection, record, proxy):
        if isinstance(connection, sqlite3.Connection):
            connection.execute(f"PRAGMA max_page_count={limit['pages']}")

    sa.event.listen(sa.pool.Pool, "checkout", apply)
    yield limit
    sa.event.remove(sa.pool.Pool, "checkout", apply)


def test_a_full_disk(tmp_path, disk):
    store = TrialStore(tmp_path / "trials.db")
    store.add([trial(0)])
    large = [trial(number, note="x" * 5000) for number in range(1, 50)]
    disk["pages"] = 20
    with user_error("disk is full; nothing was changed"):
        store.add(large)
    with user_error("disk is full"):
        store.update(trial(0), note="x" * 200_000)
    assert store.trials() == [trial(0)]
    # A change that still fits is written.
    changed = store.update(trial(0), state=TrialState.RUNNING)
    disk["pages"] = 2**30
    store.add(large)
    assert store.trials() == [changed, *large]
    store.close()


def test_a_disk_too_full_for_an_upgrade(tmp_path, disk):
    """Version 1 stays as it was."""
    path = tmp_path / "trials.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        columns = "number, tokens, architecture, key, seed, state, duplicate_of, worker, metrics, "
        columns += "latency_ms, reward, error, started, finished"
        connection.execute(f"CREATE TABLE trials ({columns}, PRIMARY KEY (number))")
        rows = [
            (number, "[1, 2]", "name: 'a'", "k", number, "PENDING", "{}", "x" * 5000)
            for number in range(50)
        ]
        connection.executemany(
            "INSERT INTO trials (number, tokens, architecture, key, seed, state, metrics, error) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        connection.commit()
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
    disk["pages"] = pages + 10
    with user_error("disk is full"):
        TrialStore(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        assert names == [("trials",)]
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (50,)
    disk["pages"] = 2**30
    store = TrialStore(path)
    assert store.trials() == [trial(number, error="x" * 5000) for number in range(50)]
    store.close()


@contextlib.contextmanager
def nobody():
    """Root may write everything: as root the test goes on as another user."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.fixture
def public_folder():
    """pytest's own folder is root's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
        Path(folder).chmod(0o755)


def test_a_read_only_file_can_be_read(public_folder):
    path = public_folder / "tri?als.db"
    store = TrialStore(path)
    store.add([trial(0)])
    store.close()
    path.chmod(0o444)
    public_folder.chmod(0o555)
    with nobody():
        store = TrialStore(path)
        assert store.trials() == [trial(0)]
        assert [summary.num_trials for summary in list_searches(path)] == [1]
        with user_error(r"tri\?als.db: .*readonly database; make the file and its folder writable"):
            store.add([trial(1)])
        store.close()
        with user_error("readonly database"):
            TrialStore(path, "another search")
    public_folder.chmod(0o755)
    path.chmod(0o644)
    store = TrialStore(path)
    store.add([trial(1)])
    assert store.trials() == [trial(0), trial(1)]
    store.close()


def test_a_file_that_another_user_is_writing_can_be_read(public_folder):
    path = public_folder / "trials.db"
    store = TrialStore(path)
    store.add([trial(0)])
    for file in public_folder.iterdir():
        file.chmod(0o444)
    public_folder.chmod(0o555)
    with nobody():
        reader = TrialStore(path, create=False)
        assert reader.trials() == [trial(0)]
        with user_error("readonly database"):
            reader.add([trial(1)])
        reader.close()
    store.close()

"""Databases of older, newer and other programs."""

import contextlib
import datetime
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from mnasdet.errors import UserError
from mnasdet.search.trials.trial import checksum, fields, to_row
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore, list_searches
from tests.search.postgresql import connect

# As mnasdet made them up to version 0.1.0.
VERSION_1 = """
CREATE TABLE trials (
    number INTEGER NOT NULL, tokens TEXT NOT NULL, architecture TEXT NOT NULL,
    key VARCHAR(32) NOT NULL, seed BIGINT NOT NULL, state {state} NOT NULL,
    duplicate_of INTEGER, worker TEXT, metrics TEXT NOT NULL, latency_ms FLOAT, reward FLOAT,
    error TEXT, started {time}, finished {time}, PRIMARY KEY (number)
);
CREATE INDEX ix_trials_key ON trials (key);
INSERT INTO trials VALUES (1, '[1, 0]', 'name: "b"', 'k', 8, 'FAILED', 0, NULL, '{{}}', NULL, NULL,
    'why', NULL, NULL);
INSERT INTO trials VALUES (0, '[1, 1]', 'name: "a"', 'k', 7, 'COMPLETE', NULL, 'w',
    '{{"DetectionBoxes_Precision/mAP": 0.25}}', 1.5, 0.125, NULL,
    '2025-05-04 03:02:01.000009', '2025-05-04 03:12:01.000009');
"""
# As mnasdet made them up to version 0.2.0.
VERSION_2 = """
CREATE TABLE schema_version (version INTEGER);
INSERT INTO schema_version VALUES (2);
CREATE TABLE searches (
    id {serial}, name TEXT NOT NULL UNIQUE, created {time} NOT NULL, description TEXT
);
INSERT INTO searches (name, created, description)
    VALUES ('mine', '2025-05-04 03:02:00.000000', '{{"seed": 7}}');
CREATE TABLE trials (
    search_id INTEGER NOT NULL REFERENCES searches (id), number INTEGER NOT NULL,
    tokens TEXT NOT NULL, architecture TEXT NOT NULL, key TEXT NOT NULL, seed BIGINT NOT NULL,
    state TEXT NOT NULL, duplicate_of INTEGER, worker TEXT, metrics TEXT NOT NULL,
    latency_ms FLOAT, reward FLOAT, error TEXT, started {time}, finished {time}, note TEXT,
    PRIMARY KEY (search_id, number)
);
INSERT INTO trials VALUES (1, 1, '[1, 0]', 'name: "b"', 'k', 8, 'FAILED', 0, NULL, '{{}}', NULL,
    NULL, 'why', NULL, NULL, NULL);
INSERT INTO trials VALUES (1, 0, '[1, 1]', 'name: "a"', 'k', 7, 'COMPLETE', NULL, 'w',
    '{{"DetectionBoxes_Precision/mAP": 0.25}}', 1.5, 0.125, NULL,
    '2025-05-04 03:02:01.000009', '2025-05-04 03:12:01.000009', NULL);
"""
TRIALS = [
    Trial(
        number=0,
        tokens=(1, 1),
        architecture='name: "a"',
        key="k",
        seed=7,
        state=TrialState.COMPLETE,
        worker="w",
        metrics={"DetectionBoxes_Precision/mAP": 0.25},
        accuracy=0.25,
        cost=1.5,
        reward=0.125,
        started=datetime.datetime(2025, 5, 4, 3, 2, 1, 9),
        finished=datetime.datetime(2025, 5, 4, 3, 12, 1, 9),
    ),
    Trial(
        number=1,
        tokens=(1, 0),
        architecture='name: "b"',
        key="k",
        seed=8,
        state=TrialState.FAILED,
        duplicate_of=0,
        error="why",
    ),
]


def query(path, statement):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


@pytest.fixture
def version_1(tmp_path):
    path = tmp_path / "trials.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1.format(state="VARCHAR(8)", time="DATETIME"))
    return path


@pytest.fixture(params=["file", "server"])
def version_2(request, tmp_path):
    if request.param == "server":
        url = request.getfixturevalue("postgresql").new_database()
        with connect(url) as connection:
            connection.execute(VERSION_2.format(serial="SERIAL PRIMARY KEY", time="TIMESTAMP"))
        return url
    path = tmp_path / "trials.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_2.format(serial="INTEGER PRIMARY KEY", time="DATETIME"))
    return path


@pytest.mark.parametrize("create", [True, False])
def test_a_version_2_database_is_brought_up_to_date(version_2, create):
    for _ in range(2):
        store = TrialStore(version_2, "mine", create=create)
        assert store.trials() == TRIALS
        assert store.description() == {"seed": 7}
        with store.claimed():
            assert store.update(TRIALS[1], note="n").note == "n"
            store.update(TRIALS[1], note=None)
        store.close()


@pytest.mark.parametrize("create", [True, False])
def test_a_version_1_file_is_brought_up_to_date(version_1, create):
    store = TrialStore(version_1, "mine", create=create)
    assert store.trials() == TRIALS
    assert store.description() is None
    store.add([Trial(2, (), "", "k", 9, state=TrialState.REJECTED)])
    store.close()
    assert query(version_1, "SELECT version FROM schema_version") == [(4,)]
    tables = query(version_1, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    assert tables == [("leases",), ("schema_version",), ("searches",), ("trials",)]
    assert query(version_1, "PRAGMA foreign_key_check") == []
    # From now on the name counts.
    with pytest.raises(UserError, match="no search 'other' in .*; one of mine"):
        TrialStore(version_1, "other", create=False)


def test_a_version_1_search_gets_a_name_when_searches_are_listed(version_1):
    (summary,) = list_searches(version_1, unnamed="folder")
    assert summary.name == "folder"
    assert summary.counts == {TrialState.COMPLETE: 1, TrialState.FAILED: 1}


def test_a_version_1_database_on_a_server(postgresql):
    url = postgresql.new_database()
    states = "'PENDING', 'RUNNING', 'COMPLETE', 'FAILED'"
    with connect(url) as connection:
        connection.execute(f"CREATE TYPE trialstate AS ENUM ({states})")
        connection.execute(VERSION_1.format(state="trialstate", time="TIMESTAMP"))
    store = TrialStore(url, "mine")
    assert store.trials() == TRIALS
    rejected = store.update(TRIALS[0], state=TrialState.REJECTED)
    assert store.trial(0) == rejected
    store.close()


def test_many_open_a_version_1_file_at_once(version_1):
    def read(_):
        store = TrialStore(version_1, "mine")
        trials = store.trials()
        store.close()
        return trials

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(read, range(12))) == [TRIALS] * 12


def test_an_upgrade_that_fails_leaves_version_1(version_1):
    # In the way of the copy.
    query(version_1, "CREATE TABLE trials_version_1 (a)")
    before = (
        query(version_1, "SELECT * FROM sqlite_master"),
        query(version_1, "SELECT * FROM trials"),
    )
    with pytest.raises(UserError, match="cannot be used as a trial store: .*trials_version_1"):
        TrialStore(version_1)
    after = (
        query(version_1, "SELECT * FROM sqlite_master"),
        query(version_1, "SELECT * FROM trials"),
    )
    assert after == before
    query(version_1, "DROP TABLE trials_version_1")
    store = TrialStore(version_1)
    assert store.trials() == TRIALS
    store.close()


def test_a_version_3_database_is_brought_up_to_date(location):
    """Made of one of this version; `tests/search/test_old_run.py` has a real one."""
    store = TrialStore(location, "mine")
    store.add(TRIALS)
    store.close()
    on_server = isinstance(location, str)
    with connect(location) if on_server else sqlite3.connect(location) as connection:
        connection.execute("ALTER TABLE trials DROP COLUMN accuracy")
        connection.execute("ALTER TABLE trials RENAME COLUMN cost TO latency_ms")
        connection.execute("UPDATE schema_version SET version = 3")
        for trial in TRIALS:
            row = {"search_id": 1, **to_row(fields(trial))}
            row["latency_ms"] = row.pop("cost")
            del row["accuracy"]
            connection.execute(
                f"UPDATE trials SET checksum = '{checksum(row)}' WHERE number = {trial.number}"
            )
    store = TrialStore(location, "mine")
    assert store.trials() == TRIALS
    store.close()


def test_a_later_version_is_left_alone(location):
    TrialStore(location).close()
    on_server = isinstance(location, str)
    with connect(location) if on_server else sqlite3.connect(location) as connection:
        connection.execute("UPDATE schema_version SET version = 5")
    message = "has schema version 5, and this mnasdet knows versions up to 4; use a newer mnasdet"
    for open_store in (TrialStore, list_searches):
        with pytest.raises(UserError, match=message):
            open_store(location)


@pytest.mark.parametrize(
    "tables",
    [
        ["trials (number INTEGER, patient TEXT)"],
        ["schema_version (version INTEGER)"],
        ["searches (id INTEGER)", "trials (id INTEGER)", "schema_version (installed_rank INTEGER)"],
    ],
)
def test_tables_of_another_program(tables, tmp_path):
    path = tmp_path / "trials.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for table in tables:
            connection.execute(f"CREATE TABLE {table}")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"holds tables of another program \("):
        TrialStore(path)
    assert query(path, "SELECT count(*) FROM sqlite_master") == [(len(tables),)]
    assert len(path.read_bytes()) == len(before)


def test_tables_beside_ours_do_not_matter(tmp_path):
    path = tmp_path / "trials.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (id INTEGER)")
    store = TrialStore(path)
    store.add(TRIALS)
    store.close()
    store = TrialStore(path)
    assert store.trials() == TRIALS
    store.close()

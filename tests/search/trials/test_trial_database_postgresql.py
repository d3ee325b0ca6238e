"""Tests that a server's fault gives one readable line without the password, and loses nothing."""

import contextlib
import re
import sys
import time

import pytest
import sqlalchemy as sa

from mnasdet import passwords
from mnasdet.errors import UserError
from mnasdet.search.trials import trial_database
from mnasdet.search.trials.trial_store import TrialStore
from tests.search.postgresql import connect
from tests.search.store_errors import trial, user_error

# All connections but the one that says so.
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"


def test_a_locked_row_on_a_server(postgresql):
    url = postgresql.new_database()
    store = TrialStore(url, timeout_seconds=0.02)
    store.add([trial(0)])
    with connect(url) as other:
        other.execute("BEGIN")
        other.execute("UPDATE trials SET note = 'mine' WHERE number = 0")
        with user_error("canceling statement due to lock timeout"):
            store.update(trial(0), note="late")
        other.execute("ROLLBACK")
    assert store.trials() == [trial(0)]
    changed = store.update(trial(0), note="late")
    assert store.trials() == [changed]
    store.close()


def test_a_server_that_is_out_of_reach():
    start = time.monotonic()
    with user_error(r"^postgresql\+psycopg://u:\*\*\*@127.0.0.1:1/d: .*Connection refused"):
        TrialStore("postgresql://u:se%2Fcr%40t%25word@127.0.0.1:1/d")
    assert time.monotonic() - start < 5, "a wrong address need not be tried again"


def test_a_wrong_password_and_a_wrong_database(postgresql):
    with user_error('password authentication failed for user "tester"'):
        TrialStore(postgresql.url("postgres", "wrong"))
    with user_error("~/.pgpass .* or PGPASSWORD"):
        TrialStore(passwords.removed(postgresql.url("postgres")))
    with user_error('database "missing" does not exist'):
        TrialStore(postgresql.url("missing"))


def test_a_server_that_stops_and_comes_back(postgresql):
    url = postgresql.new_database()
    store = TrialStore(url, timeout_seconds=0.05)
    store.add([trial(0)])
    postgresql.stop()
    try:
        with user_error("connection to server on socket"):
            store.add([trial(1)])
        with user_error("connection to server on socket"):
            store.trials()
    finally:
        postgresql.start()
    store.add([trial(1)])
    assert store.trials() == [trial(0), trial(1)]
    store.close()


def test_a_cut_connection_is_replaced(postgresql):
    """One found dead before a transaction, and one that dies in the middle of it."""
    url = postgresql.new_database()
    store = TrialStore(url, timeout_seconds=0.05)
    with connect(url) as other:
        other.execute(CUT)
        store.add([trial(0)])
        cuts = []

        def once(connection, cursor, statement, *_):
            if statement.startswith("INSERT") and not cuts:
                cuts.append(statement)
                other.execute(CUT)

        with listening("before_cursor_execute", once):
            store.add([trial(1)])
    assert len(cuts) == 1
    assert store.trials() == [trial(0), trial(1)]
    store.close()


def test_a_frozen_server_is_given_up_and_works_again_later(postgresql, monkeypatch):
    monkeypatch.setattr(trial_database, "_LEAST_SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(trial_database, "_ATTEMPTS", 2)
    url = postgresql.new_database()
    store = TrialStore(url, timeout_seconds=0.05)
    store.add([trial(0)])
    with postgresql.frozen(), user_error("timeout|closed|SYSCALL|failed"):
        store.add([trial(1)])
    store.add([trial(2)])
    assert {0, 2} <= {one.number for one in store.trials()}
    store.close()


def test_a_process_that_is_frozen_in_a_transaction_holds_nobody_up(postgresql, monkeypatch):
    url = postgresql.new_database()
    waiting = TrialStore(url, timeout_seconds=1.0)
    waiting.add([trial(0)])
    monkeypatch.setattr(trial_database, "_MOST_IDLE_MS", 100)
    frozen = trial_database.TrialDatabase(url)
    changed = []

    def work(connection):
        connection.execute(sa.text("UPDATE trials SET note = 'mine' WHERE number = 0"))
        # Meanwhile this transaction does nothing, with the row locked.
        changed.append(waiting.update(trial(0), note="late"))

    with user_error("idle-in-transaction timeout"):
        frozen.write(work)
    assert waiting.trials() == changed
    frozen.close()
    waiting.close()


def test_a_connection_that_breaks_at_the_commit(postgresql):
    """Not tried again by itself: nobody knows whether the server has done it."""
    url = postgresql.new_database()
    store = TrialStore(url, timeout_seconds=0.05)
    with connect(url) as other:
        cuts = []

        def cut(connection):
            cuts.append(connection)
            other.execute(CUT)

        with listening("commit", cut), user_error("terminating connection"):
            store.add([trial(0)])
    assert len(cuts) == 1
    assert store.trials() == []
    store.add([trial(0)])
    assert store.trials() == [trial(0)]
    store.close()


@contextlib.contextmanager
def listening(name, function):
    sa.event.listen(sa.Engine, name, function)
    yield
    sa.event.remove(sa.Engine, name, function)


def test_a_user_without_rights(postgresql):
    url = postgresql.new_database()
    with connect(url) as connection:
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        connection.execute("DROP ROLE IF EXISTS reader")
        connection.execute("CREATE ROLE reader LOGIN PASSWORD 'se/cr@t%word'")
    reader = url.replace("tester:", "reader:")
    with user_error("permission denied for schema public"):
        TrialStore(reader)
    store = TrialStore(url)
    store.add([trial(0)])
    with user_error("permission denied for table"):
        TrialStore(reader)
    with connect(url) as connection:
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    read_only = TrialStore(reader, create=False)
    assert read_only.trials() == [trial(0)]
    with user_error("permission denied for table trials"):
        read_only.add([trial(1)])
    read_only.close()
    store.close()


def test_a_missing_driver_says_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with user_error(re.escape('pip install "mnasdet[postgresql]"')):
        TrialStore("postgresql://u:se%2Fcr%40t%25word@localhost/d")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://u:hidden@h/d", r"kept in one of sqlite, postgresql, not in mysql"),
        ("://", "is no database URL"),
        ("postgresql://u:hidden@h:port/d", "is no database URL"),
        ("postgresql://u:hid@hidden@h/d", r"^postgresql://\*\*\*@h/d: is no database URL; .*%40"),
        ("postgresql+pg9000://u:hidden@h/d", "sqlalchemy.dialects:postgresql.pg9000"),
        ("postgresql://127.0.0.1:1/d?password=hidden", r"password=\*\*\*: .*refused"),
    ],
)
def test_urls_that_cannot_be_used(url, message):
    with pytest.raises(UserError, match=message) as raised:
        TrialStore(url)
    assert "hid" not in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1

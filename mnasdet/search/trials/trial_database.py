"""A database of trials: its URL, its transactions, and its errors as one line that can be read."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import sqlalchemy as sa

from mnasdet.errors import UserError, nearest

_T = TypeVar("_T")

_BACKENDS = ("postgresql", "sqlite")
_DRIVER = "postgresql+psycopg"

# How often a transaction is tried while another program has the lock, or the server restarts.
_ATTEMPTS = 4

# A server is silent after so many times `timeout_seconds`, and not before so many seconds: a
# transaction may wait for a lock, and then for its answer.
_SILENCE = 3
_LEAST_SILENCE_SECONDS = 5.0

# Milliseconds for which a transaction on a server may do nothing.
_MOST_IDLE_MS = 60_000

# PostgreSQL: serialization failure, deadlock, lock timeout, server going down, crashed, starting.
_PASSING = {"40001", "40P01", "55P03", "57P01", "57P02", "57P03"}

_PASSWORD_PLACES = "~/.pgpass (host:port:database:user:password, mode 0600) or PGPASSWORD"

# Remedies for errors, by a part of their text: only Python 3.11 has SQLite's codes, and libpq's own
# complaints have none.
_ADVICE = {
    "no password supplied": f"a password comes from {_PASSWORD_PLACES}",
    "password authentication failed": f"see which one {_PASSWORD_PLACES} has, if not the URL",
    "is locked": "another program holds it; nothing was changed, try again when that is done",
    "is full": "nothing was changed, go on when there is space",
    "readonly": "make the file and its folder writable",
    "unable to open": "its folder is missing, or may not be read",
}


class TrialDatabase:
    """Whole transactions on an SQLite file or a PostgreSQL server.

    Every one is done in full or not at all. One that meets a lock or a restarting server is tried
    a few times; then, and when the disk is full or the server out of reach, a UserError says so,
    and the same call works once the cause is gone.
    """

    def __init__(self, location: str | Path, create: bool = True, timeout_seconds: float = 10.0):
        """Does not connect yet.

        Args:
          location: a file or a URL, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE.
          create: whether a file that is missing is made.
          timeout_seconds: for which one attempt waits for a lock or a server.
        """
        url = _parse(location)
        self.name = shown(location)
        self._secrets = [text for text in (url.password, *_query_passwords(url)) if text]
        self._timeout_seconds = timeout_seconds
        self._connected = False
        milliseconds = max(1, round(1000 * timeout_seconds))
        if url.get_backend_name() == "sqlite":
            self._check_file(url, create)
            self._engine = sa.create_engine(_readable(url))
            _set_up_sqlite(self._engine, milliseconds)
            # A transaction that reads first and writes then would fail at once on a lock.
            self._begin = {"read": "BEGIN", "write": "BEGIN IMMEDIATE"}
        else:
            self._engine = self._postgresql_engine(url)
            # A process that is frozen in a transaction must not keep its locks for ever.
            limit = f"SET LOCAL lock_timeout = {milliseconds}"
            limits = f"{limit}; SET LOCAL idle_in_transaction_session_timeout = {_MOST_IDLE_MS}"
            self._begin = {"read": limit, "write": limits}

    def read(self, work: Callable[[sa.Connection], _T]) -> _T:
        """Does work in a transaction of its own, which must only read, and returns its result."""
        return self._transact(work, [self._begin["read"]])

    def write(self, work: Callable[[sa.Connection], _T], durable: bool = True) -> _T:
        """Does work in a transaction of its own, and returns its result. It may be done more than
        once.

        Args:
          durable: whether the transaction survives a power cut, which costs a few milliseconds of
            an SQLite file's disk. A later durable one makes it durable as well.

        Raises:
          sqlalchemy.exc.IntegrityError: as it is, for the caller to explain.
        """
        synchronous = "FULL" if durable else "NORMAL"
        is_sqlite = self._engine.dialect.name == "sqlite"
        ahead = [f"PRAGMA synchronous={synchronous}"] if is_sqlite else []
        return self._transact(work, [*ahead, self._begin["write"]])

    def close(self) -> None:
        self._engine.dispose()

    def problem(self, text: str) -> UserError:
        """Returns an error about this database: one line, without its password."""
        # Drivers quote the URL in their errors, password and all.
        for secret in self._secrets:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
        return UserError(f"{self.name}: cannot be used as a trial store: {' '.join(text.split())}")

    def _transact(self, work: Callable[[sa.Connection], _T], begin: Sequence[str]) -> _T:
        for attempt in range(_ATTEMPTS):
            worked = False
            try:
                with (
                    self._engine.connect() as connection,
                    self._not_silent(connection),
                    connection.begin(),
                ):
                    self._connected = True
                    for statement in begin:
                        connection.exec_driver_sql(statement)
                    result = work(connection)
                    worked = True
                return result
            except (sa.exc.IntegrityError, sa.exc.DataError):
                raise
            except sa.exc.DBAPIError as error:
                # Whether a commit that broke off was done is not known: it is not tried again.
                last = worked or attempt == _ATTEMPTS - 1
                if last or not self._is_passing(error):
                    raise self.problem(_explain(error)) from None
            # Longer each time: a restarting server needs seconds, a lock often less.
            time.sleep(min(2.0**attempt, self._timeout_seconds))
        raise AssertionError("the last attempt returns or raises")

    @contextlib.contextmanager
    def _not_silent(self, connection: sa.Connection) -> Iterator[None]:
        """Cuts a connection to a server that says nothing for too long.

        A server that is frozen, or whose cable was pulled, leaves the connection open: its client
        would wait for ever.
        """
        if self._engine.dialect.name == "sqlite":
            yield
            return
        driver = connection.connection.dbapi_connection
        seconds = max(_SILENCE * self._timeout_seconds, _LEAST_SILENCE_SECONDS)
        timer = threading.Timer(seconds, _cut, [driver])
        # The timer must not keep a program alive that ends meanwhile.
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _is_passing(self, error: sa.exc.DBAPIError) -> bool:
        """Returns whether another attempt may go well."""
        if self._engine.dialect.name == "sqlite":
            return "is locked" in str(error.orig)
        state = getattr(error.orig, "sqlstate", None)
        # A server that was never reached is a wrong URL; one that was is being restarted.
        lost = state is None and isinstance(error, sa.exc.OperationalError) and self._connected
        return lost or state in _PASSING

    def _check_file(self, url: sa.URL, create: bool) -> None:
        if not url.database or url.database.startswith(("file:", ":memory:")):
            return  # In memory, or a URI of SQLite's own.
        path = Path(url.database)
        if path.is_dir():
            raise self.problem("is a folder")
        # SQLite would make an empty file under a mistyped name.
        if not create and not path.exists():
            raise self.problem("no such file")

    def _postgresql_engine(self, url: sa.URL) -> sa.Engine:
        arguments: dict[str, Any] = {}
        # The user's own, in the URL, prevails.
        if "connect_timeout" not in url.query:
            arguments["connect_timeout"] = max(2, round(self._timeout_seconds))
        try:
            # Without a ping ahead of every transaction, which would wait for a silent server: where
            # a restart has cut the connection, the transaction is tried again on another.
            return sa.create_engine(url, connect_args=arguments)
        except ImportError as error:
            raise self.problem(
                f'{error}; pip install "mnasdet[postgresql]" and use {_DRIVER}://...'
            ) from None
        except sa.exc.ArgumentError as error:
            raise self.problem(str(error)) from None


def _cut(driver: Any) -> None:
    """Closes the socket of a driver's connection; what waits for it gets an error."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(driver.fileno())) as cut:
        cut.shutdown(socket.SHUT_RDWR)


def _parse(location: str | Path) -> sa.URL:
    """Returns the URL of a location, with the driver that mnasdet installs.

    Raises:
      UserError: it is no URL, or one of another database than SQLite and PostgreSQL.
    """
    text = str(location)
    if "://" not in text:
        return sa.URL.create("sqlite", database=text)
    try:
        url = sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        url = None
    # A password with an @ that is not escaped would put its rest into the host, which is shown.
    if url is None or "@" in (url.host or ""):
        raise UserError(
            f"{_without_password(text)}: is no database URL; use a file or "
            "postgresql://USER:PASSWORD@HOST/DATABASE, in a password %40 for @ and %2F for /"
        )
    backend = url.get_backend_name()
    if backend == "postgres" or url.drivername == "postgresql":
        return url.set(drivername=_DRIVER)
    if backend not in _BACKENDS:
        raise UserError(
            f"{_without_password(text)}: trials are kept in {nearest(backend, _BACKENDS)}, "
            f"not in {backend}"
        )
    return url


def _without_password(text: str) -> str:
    """Hides the password of a URL that may be ill-formed: of several @ the last ends it."""
    return re.sub(r"(password=)[^&]*", r"\1***", re.sub(r"//.*@", "//***@", text))


def _query_passwords(url: sa.URL) -> list[str]:
    values = [value for name, value in url.query.items() if "password" in name]
    return [text for value in values for text in ([value] if isinstance(value, str) else value)]


def shown(location: str | Path) -> str:
    """Returns a file or a URL as it may be printed: without a password."""
    if "://" not in str(location):
        return str(location)
    url = _parse(location)
    hidden = {name: "***" for name in url.query if "password" in name}
    text = url.update_query_dict(hidden).render_as_string(hide_password=True)
    return text.replace("%2A%2A%2A", "***")


def _readable(url: sa.URL) -> sa.URL:
    """Returns a URL under which a file can at least be read.

    SQLite writes beside a database even to read it. Where it may not, and nobody has it open,
    "immutable" lets it read all the same.
    """
    path = Path(url.database or "")
    if url.query or not path.is_file() or Path(f"{path}-wal").exists():
        return url
    as_effective = os.access in os.supports_effective_ids
    if all(os.access(p, os.W_OK, effective_ids=as_effective) for p in (path, path.parent)):
        return url
    uri = f"file:{quote(str(path.absolute()))}"
    return sa.URL.create("sqlite", database=uri, query={"immutable": "1", "uri": "true"})


def _set_up_sqlite(engine: sa.Engine, busy_timeout: int) -> None:
    @sa.event.listens_for(engine, "connect")
    def set_up(connection, record) -> None:
        # Transactions begin where this module says, not where the driver guesses.
        connection.isolation_level = None
        connection.execute(f"PRAGMA busy_timeout={busy_timeout}")
        # Readers (a report, a second terminal) never block the search.
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")


def _explain(error: sa.exc.DBAPIError) -> str:
    text = str(error.orig)
    advice = [advice for part, advice in _ADVICE.items() if part in text]
    return "; ".join([text, *advice])

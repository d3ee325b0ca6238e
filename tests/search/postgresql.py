"""A PostgreSQL server for the tests, from Debian's package `postgresql`."""

from __future__ import annotations

import glob
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

# With signs that a URL has to quote.
PASSWORD = "se/cr@t%word"


class Server:
    """A server in a scratch folder, reached through a Unix socket in it. It trusts no one."""

    def __init__(self, folder: Path, programs: Path):
        self._folder = folder
        self._programs = programs
        self._numbers = itertools.count()
        (folder / "password").write_text(PASSWORD)
        # PostgreSQL refuses to run as root.
        self._as_owner = []
        if os.geteuid() == 0:
            self._as_owner = ["runuser", "-u", "postgres", "--"]
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres")
        initdb = ["--auth=scram-sha-256", f"--pwfile={folder}/password", "--no-sync", "-Utester"]
        self._run("initdb", *initdb, "--encoding=UTF8", "--locale=C")

    def start(self) -> None:
        options = f"-k {self._folder} -c listen_addresses= -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-o", options, "-l", f"{self._folder}/log")

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-w", "-m", "fast")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """The server's processes stand still: connections stay open, and nothing answers."""
        pid = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    def url(self, database: str, password: str = PASSWORD) -> str:
        user = f"tester:{quote(password, safe='')}"
        return f"postgresql+psycopg://{user}@/{database}?host={self._folder}"

    def new_database(self) -> str:
        """The URL of a database with nothing in it."""
        name = f"test_{next(self._numbers)}"
        with connect(self.url("postgres")) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_owner, str(self._programs / program), "-D", f"{self._folder}/data"]
        # Not into a pipe: the server would keep it open.
        subprocess.run(
            [*command, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            timeout=120,
        )


def connect(url: str):
    """A connection of psycopg's own, which commits every statement."""
    import psycopg

    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


@contextmanager
def running_server() -> Iterator[Server]:
    """A server, stopped and forgotten at the end.

    Where the package is missing the test is skipped, but on CI it fails.
    """
    programs = _programs()
    try:
        import psycopg  # noqa: F401
    except ImportError:
        _skip('psycopg is missing: pip install "mnasdet[postgresql]"')
    with tempfile.TemporaryDirectory(prefix="mnasdet-postgresql-") as folder:
        server = Server(Path(folder), programs)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _programs() -> Path:
    """Where initdb and pg_ctl are; Debian keeps them out of PATH."""
    found = [*glob.glob("/usr/lib/postgresql/*/bin/initdb"), shutil.which("initdb")]
    paths = [Path(path).parent for path in found if path]
    if not paths:
        _skip("no PostgreSQL server here: apt-get install postgresql (Debian's package)")
    return max(paths, key=lambda path: (path.parent.name.isdigit(), path.parent.name.zfill(4)))


def _skip(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)

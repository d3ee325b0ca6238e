"""Keeps a search for one process, wherever its folder and its database are."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
from absl import logging

from mnasdet.errors import UserError
from mnasdet.search.trials import trial_schema
from mnasdet.search.trials.trial_database import TrialDatabase
from mnasdet.search.trials.trial_schema import LEASES

# Seconds between the signs of life of the process that holds a lease, and after the last of them
# until another process may take it.
_BETWEEN_HEARTBEATS = 10.0
_UNTIL_EXPIRED = 60.0


class Lease:
    """The right to write the trials of a search.

    A lease is a row of the database with a token that grows by one with every holder. Its
    holder renews it in every transaction that writes, and every few seconds in between. A
    holder that was frozen for a minute may find that another process has taken over: the token
    has changed, and its transaction fails before it changed a trial.
    """

    def __init__(self, database: TrialDatabase, search_id: int, search_name: str):
        self._database = database
        self._search_id = search_id
        self._search_name = search_name
        self._token = 0
        self._released = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="lease", daemon=True)

    def acquire(self) -> None:
        """Takes the lease and keeps it until `release`.

        Raises:
          UserError: another process has it, and shows signs of life.
        """
        self._database.write(self._take)
        self._keeper.start()

    def renew(self, connection: sa.Connection) -> None:
        """Shows a sign of life; called first in every transaction that writes.

        Raises:
          UserError: another process has taken over.
        """
        update = LEASES.update().where(self._is_ours()).values(heartbeat=_now(connection))
        if connection.execute(update).rowcount != 1:
            raise UserError(
                f"search {self._search_name!r} was taken over by another process, because this one "
                f"had shown no sign of life for {_UNTIL_EXPIRED:.0f} s; its trials are left alone, "
                "and --resume goes on when the other one has ended"
            )

    def release(self) -> None:
        """Gives the lease back. The token stays in the database, for the next holder to raise."""
        self._released.set()
        self._keeper.join(_BETWEEN_HEARTBEATS)
        free = LEASES.update().where(self._is_ours()).values(heartbeat=0.0)
        self._database.write(lambda connection: connection.execute(free))

    def _take(self, connection: sa.Connection) -> None:
        trial_schema.lock(connection)  # Two that find no lease would both make the first one.
        ours = LEASES.c.search_id == self._search_id
        held = connection.execute(sa.select(LEASES).where(ours)).mappings().one_or_none()
        now = _now(connection)
        if held is not None and (other := _living(held, now)):
            raise UserError(
                f"search {self._search_name!r} is being run by {other}; wait for it, or stop it"
            )
        # A damaged row may have anything for a token.
        last = held["token"] if held is not None else 0
        self._token = last + 1 if isinstance(last, int) else int(now)
        values = {
            "search_id": self._search_id,
            "token": self._token,
            "owner": json.dumps(_this_process()),
            "heartbeat": now,
        }
        change = LEASES.insert() if held is None else LEASES.update().where(ours)
        connection.execute(change.values(values))

    def _keep(self) -> None:
        while not self._released.wait(_BETWEEN_HEARTBEATS):
            try:
                self._database.write(self.renew, durable=False)
            except UserError as error:
                # A database that is out of reach comes back; the next trial shows whether.
                logging.warning("%s", error)

    def _is_ours(self) -> sa.ColumnElement[bool]:
        return sa.and_(LEASES.c.search_id == self._search_id, LEASES.c.token == self._token)


def _now(connection: sa.Connection) -> float:
    """Returns seconds since 1970 by the clock that all holders share: the server's."""
    if connection.dialect.name == "postgresql":
        clock = sa.func.extract("epoch", sa.func.clock_timestamp())
        return float(connection.execute(sa.select(clock)).scalar_one())
    return time.time()


def _living(held: Any, now: float) -> str:
    """Returns who holds a lease and since when it was silent, "" for a lease that is free."""
    try:
        silent = now - held["heartbeat"]
        owner = json.loads(held["owner"])
        # A heartbeat from the future is of a clock that was wrong, or of a damaged row.
        if abs(silent) > _UNTIL_EXPIRED or _has_ended(owner):
            return ""
        return (
            f"process {owner['pid']} on {owner['host']} (in {owner['folder']}), whose last sign "
            f"of life is {silent:.0f} s old"
        )
    except (KeyError, TypeError, ValueError):
        return ""


def _this_process() -> dict[str, Any]:
    return {
        "host": platform.node(),
        "machine": _machine(),
        "pid": os.getpid(),
        "folder": os.getcwd(),
    }


def _machine() -> str:
    """Returns what names the machine whose process numbers are those that this process sees.

    A container may share its name with another, and numbers its processes by itself.
    """
    words = [platform.node()]
    with contextlib.suppress(OSError):  # Linux has these.
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        words.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(words)


def _has_ended(owner: dict[str, Any]) -> bool:
    """Returns whether the process is known to have ended: one of another machine never is."""
    return owner["machine"] == _machine() and not psutil.pid_exists(owner["pid"])

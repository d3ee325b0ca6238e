"""The trials of a search in a database: what was proposed, what came of it."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mnasdet.errors import UserError, nearest
from mnasdet.search import trial_schema
from mnasdet.search.trial import Trial, TrialState, fields, from_row, now, to_row
from mnasdet.search.trial_database import TrialDatabase
from mnasdet.search.trial_schema import SEARCHES, TRIALS

__all__ = ["SearchSummary", "Trial", "TrialState", "TrialStore", "list_searches", "now"]

# Those of a trial: all but the search that it belongs to.
_COLUMNS = [column for column in TRIALS.columns if column.name != "search_id"]


@dataclasses.dataclass(frozen=True)
class SearchSummary:
    """A search of a database.

    Attributes:
      created: UTC.
      counts: trials by state; states without any are left out.
      duplicates: trials that took the result of an earlier one.
      best_reward: None while no trial is complete.
    """

    name: str
    created: datetime.datetime
    counts: dict[TrialState, int]
    duplicates: int
    best_reward: float | None

    @property
    def num_trials(self) -> int:
        return sum(self.counts.values())


class TrialStore:
    """The trials of one search, in an SQLite file or on a PostgreSQL server with other searches.

    Every change is one transaction: a process that is killed leaves whole trials behind, and a
    call that raised changed nothing. Threads and processes may write at the same time.
    """

    def __init__(
        self,
        location: str | Path,
        search_name: str = "search",
        create: bool = True,
        timeout_seconds: float = 10.0,
    ):
        """Opens a search. Tables of an older version are brought up to date.

        Args:
          location: a file or a URL, sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE.
          search_name: tells the searches of a database apart; printable.
          create: whether the file, the tables and the search are made if missing.
          timeout_seconds: for which one of a few attempts waits for a lock or a server.

        Raises:
          UserError: the database cannot be used, or without `create`, holds no such search.
        """
        if not search_name.strip() or not search_name.isprintable():
            raise UserError(f"search name {search_name!r}: printable characters are needed")
        self.search_name = search_name
        self._database = TrialDatabase(location, create, timeout_seconds)
        try:
            _prepare(self._database, search_name, create)
            self._id = self._open_search(create)
        except UserError:
            self.close()
            raise

    @property
    def location(self) -> str:
        """The file, or the URL without its password."""
        return self._database.name

    def _open_search(self, create: bool) -> int:
        find = trial_schema.find_search
        search_id = self._database.read(lambda connection: find(connection, self.search_name))
        if search_id is not None:
            return search_id
        if create:
            add = trial_schema.add_search
            return self._database.write(lambda connection: add(connection, self.search_name))
        names = [summary.name for summary in self._database.read(_summaries)]
        allowed = nearest(self.search_name, names) if names else "it holds none"
        raise UserError(f"no search {self.search_name!r} in {self._database.name}; {allowed}")

    def add(self, trials: Sequence[Trial]) -> None:
        """Writes new trials, all of them or none.

        Raises:
          UserError: one of the numbers is taken.
        """
        if not trials:
            return
        rows = [{"search_id": self._id} | to_row(fields(trial)) for trial in trials]
        try:
            self._database.write(lambda connection: connection.execute(TRIALS.insert(), rows))
        except sa.exc.IntegrityError as error:
            raise self._database.problem(
                f"search {self.search_name!r} holds one of trials {trials[0].number} to "
                f"{trials[-1].number} already; is another process at this search? ({error.orig})"
            ) from None

    def update(self, trial: Trial, **changes: Any) -> Trial:
        """Changes fields of a stored trial and returns it as it is now.

        Raises:
          UserError: the trial is not in the store.
        """
        row = to_row(changes)
        changed = dataclasses.replace(trial, **from_row(row))
        update = TRIALS.update().where(self._has(trial.number)).values(row)
        if self._database.write(lambda connection: connection.execute(update).rowcount) != 1:
            raise self._unknown(trial.number)
        return changed

    def trial(self, number: int) -> Trial:
        """Raises UserError, with the numbers that there are, for one that is not in the store."""
        query = sa.select(*_COLUMNS).where(self._has(number))
        rows = self._database.read(lambda connection: connection.execute(query).mappings().all())
        if not rows:
            raise self._unknown(number)
        return Trial(**from_row(rows[0]))

    def trials(self) -> list[Trial]:
        """All of them, by number."""
        query = sa.select(*_COLUMNS).where(TRIALS.c.search_id == self._id).order_by(TRIALS.c.number)
        rows = self._database.read(lambda connection: connection.execute(query).mappings().all())
        return [Trial(**from_row(row)) for row in rows]

    def describe(self, description: dict[str, Any]) -> None:
        """Keeps what search.json holds: finite numbers, text, lists and dictionaries."""
        text = json.dumps(description, allow_nan=False)
        update = SEARCHES.update().where(SEARCHES.c.id == self._id).values(description=text)
        self._database.write(lambda connection: connection.execute(update))

    def description(self) -> dict[str, Any] | None:
        """What `describe` was last given."""
        query = sa.select(SEARCHES.c.description).where(SEARCHES.c.id == self._id)
        text = self._database.read(lambda connection: connection.execute(query).scalar())
        return None if text is None else json.loads(text)

    def close(self) -> None:
        self._database.close()

    def _has(self, number: int) -> sa.ColumnElement[bool]:
        return sa.and_(TRIALS.c.search_id == self._id, TRIALS.c.number == number)

    def _unknown(self, number: int) -> UserError:
        query = sa.select(sa.func.min(TRIALS.c.number), sa.func.max(TRIALS.c.number)).where(
            TRIALS.c.search_id == self._id
        )
        first, last = self._database.read(lambda connection: connection.execute(query).one())
        held = "no trials" if last is None else f"trials {first} to {last}"
        return UserError(f"no trial {number}: search {self.search_name!r} holds {held}")


def list_searches(
    location: str | Path, unnamed: str = "search", timeout_seconds: float = 10.0
) -> list[SearchSummary]:
    """The searches of a database, oldest first.

    Args:
      location: as of `TrialStore`.
      unnamed: the name that the search of a version 1 file gets.

    Raises:
      UserError: the database cannot be used, or holds no tables of ours.
    """
    database = TrialDatabase(location, False, timeout_seconds)
    try:
        _prepare(database, unnamed, create=False)
        return database.read(_summaries)
    finally:
        database.close()


def _prepare(database: TrialDatabase, search_name: str, create: bool) -> None:
    try:
        found = database.read(trial_schema.find_version)
        if found == 0 and not create:
            raise database.problem("holds no trials")
        if found < trial_schema.VERSION:
            database.write(lambda connection: trial_schema.prepare(connection, search_name))
    except trial_schema.UnknownSchemaError as error:
        raise database.problem(str(error)) from None


def _summaries(connection: sa.Connection) -> list[SearchSummary]:
    query = (
        sa.select(
            SEARCHES.c.id,
            SEARCHES.c.name,
            SEARCHES.c.created,
            TRIALS.c.state,
            sa.func.count(TRIALS.c.number),
            sa.func.count(TRIALS.c.duplicate_of),
            sa.func.max(TRIALS.c.reward),
        )
        .select_from(SEARCHES.outerjoin(TRIALS))
        .group_by(SEARCHES.c.id, SEARCHES.c.name, SEARCHES.c.created, TRIALS.c.state)
        .order_by(SEARCHES.c.id)
    )
    by_id: dict[int, SearchSummary] = {}
    for search_id, name, created, state, count, duplicates, reward in connection.execute(query):
        summary = by_id.get(search_id) or SearchSummary(name, created, {}, 0, None)
        counts = summary.counts | ({TrialState[state]: count} if state else {})
        rewards = [r for r in (summary.best_reward, reward) if r is not None]
        by_id[search_id] = SearchSummary(
            name, created, counts, summary.duplicates + duplicates, max(rewards, default=None)
        )
    return list(by_id.values())

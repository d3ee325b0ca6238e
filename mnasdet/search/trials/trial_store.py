"""The trials of a search in a database: what was proposed, what came of it."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from absl import logging

from mnasdet.errors import UserError, nearest
from mnasdet.search.trials import trial_schema
from mnasdet.search.trials.lease import Lease
from mnasdet.search.trials.trial import Trial, TrialState, checksum, fields, from_row, now, to_row
from mnasdet.search.trials.trial_database import TrialDatabase
from mnasdet.search.trials.trial_schema import SEARCHES, TRIALS

__all__ = ["SearchSummary", "Trial", "TrialState", "TrialStore", "list_searches", "now"]

_T = TypeVar("_T")

# The exceptions of a damaged row where it is turned into a trial.
_DAMAGE = (sa.exc.DBAPIError, ValueError, TypeError, LookupError, AttributeError, RecursionError)


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
    call that raised changed nothing. Threads and processes may write at the same time; a search
    has its trials for itself while it is `claimed`.

    Every row has a checksum. A row that was changed by anything but this class is damaged: it is
    named in a warning and left out, and the others are read.
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
        self._lease: Lease | None = None
        try:
            _prepare(self._database, search_name, create)
            self._id = self._open_search(create)
        except UserError:
            self.close()
            raise

    @property
    def location(self) -> str:
        """Returns the file, or the URL without its password."""
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

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Keeps the search for this process: another one that claims it is refused.

        Within a `with` block of this store it changes nothing.

        Raises:
          UserError: another process has claimed the search.
        """
        if self._lease:
            yield
            return
        lease = Lease(self._database, self._id, self.search_name)
        lease.acquire()
        self._lease = lease
        try:
            yield
        finally:
            self._lease = None
            # Where the database fails here, the lease expires by itself.
            with contextlib.suppress(UserError):
                lease.release()

    def add(self, trials: Sequence[Trial]) -> None:
        """Writes new trials, all of them or none.

        Raises:
          UserError: one of the numbers is taken.
        """
        if not trials:
            return
        rows = [{"search_id": self._id} | to_row(fields(trial)) for trial in trials]
        summed = [row | {"checksum": checksum(row)} for row in rows]
        try:
            # A trial that a power cut takes away is proposed again.
            self._write(lambda c: c.execute(TRIALS.insert(), summed), durable=False)
        except sa.exc.IntegrityError as error:
            raise self._database.problem(
                f"search {self.search_name!r} holds one of trials {trials[0].number} to "
                f"{trials[-1].number} already; is another process at this search? ({error.orig})"
            ) from None

    def update(self, trial: Trial, **changes: Any) -> Trial:
        """Changes fields of a stored trial and returns it as it is now.

        Raises:
          UserError: the trial is not in the store, or its row is damaged.
        """
        changed_fields = to_row(changes)
        dataclasses.replace(trial, **changes)  # Raises TypeError for a field that there is not.

        def change(connection: sa.Connection) -> Trial | None:
            query = sa.select(TRIALS).where(self._has(trial.number)).with_for_update()
            held = connection.execute(query).mappings().one_or_none()
            if held is None:
                return None
            _trial(held)  # A damaged row must not get a checksum that is right.
            row = {name: value for name, value in held.items() if name != "checksum"}
            row |= changed_fields
            summed = row | {"checksum": checksum(row)}
            connection.execute(TRIALS.update().where(self._has(trial.number)).values(summed))
            return _trial(summed)

        # A power cut may take away that a training began, but not what came of it.
        durable = changes.get("state") is not TrialState.RUNNING
        try:
            changed = self._write(change, durable)
        except _DAMAGE as error:
            raise self._damaged(trial.number, error) from None
        if changed is None:
            raise self._unknown(trial.number)
        return changed

    def trial(self, number: int) -> Trial:
        """Returns one trial.

        Raises:
          UserError: the trial is not in the store (says which are), or its row is damaged.
        """
        query = sa.select(TRIALS).where(self._has(number))
        try:
            row = self._database.read(
                lambda connection: connection.execute(query).mappings().one_or_none()
            )
            found = None if row is None else _trial(row)
        except _DAMAGE as error:
            raise self._damaged(number, error) from None
        if found is None:
            raise self._unknown(number)
        return found

    def trials(self, drop_damaged: bool = False) -> list[Trial]:
        """Returns all trials, by number, and warns of those whose rows are damaged.

        Args:
          drop_damaged: deletes these rows, so that their trials can be added anew.
        """
        query = sa.select(TRIALS).where(TRIALS.c.search_id == self._id).order_by(TRIALS.c.number)
        try:
            return [_trial(row) for row in self._rows(query)]
        except _DAMAGE:
            found, damaged = self._one_by_one()
            for number, reason in damaged.items():
                logging.warning("%s", self._damaged(number, reason))
            if drop_damaged:
                self._drop(damaged)
            return found

    def _drop(self, numbers: Collection[Any]) -> None:
        """Deletes rows, so that their trials can be added anew."""
        delete = TRIALS.delete().where(TRIALS.c.search_id == self._id)

        def drop(connection: sa.Connection) -> None:
            for number in numbers:  # None where a damaged row has no number any more.
                is_it = TRIALS.c.number.is_(None) if number is None else TRIALS.c.number == number
                connection.execute(delete.where(is_it))

        self._write(drop)

    def describe(self, description: dict[str, Any]) -> None:
        """Keeps what search.json holds: finite numbers, text, lists and dictionaries."""
        text = json.dumps(description, allow_nan=False)
        this = SEARCHES.c.id == self._id

        def change(connection: sa.Connection) -> None:
            connection.execute(SEARCHES.update().where(this).values(description=text))
            trial_schema.set_checksum(connection, SEARCHES, this)

        self._write(change)

    def description(self) -> dict[str, Any] | None:
        """Returns what `describe` was last given; None, with a warning, where that is damaged."""
        query = sa.select(SEARCHES).where(SEARCHES.c.id == self._id)
        try:
            row = self._database.read(lambda c: c.execute(query).mappings().one())
            text = _checked(row)["description"]
            return None if text is None else json.loads(text)
        except _DAMAGE as error:
            name = self.search_name
            logging.warning("the description of search %r is damaged (%s)", name, _reason(error))
            return None

    def close(self) -> None:
        self._database.close()

    def _write(self, work: Callable[[sa.Connection], _T], durable: bool = True) -> _T:
        """Returns what `work` does in a transaction, if the search is not another process's."""

        def guarded(connection: sa.Connection) -> _T:
            if self._lease:
                self._lease.renew(connection)
            return work(connection)

        return self._database.write(guarded, durable)

    def _one_by_one(self) -> tuple[list[Trial], dict[Any, Exception]]:
        """Returns the trials that can be read, and why the others cannot, by number."""
        ours = TRIALS.c.search_id == self._id
        numbers = sa.select(TRIALS.c.number).where(ours).order_by(TRIALS.c.number)
        trials: list[Trial] = []
        damaged: dict[Any, Exception] = {}
        for held in self._rows(numbers):
            number = held["number"]
            try:
                (row,) = self._rows(sa.select(TRIALS).where(ours, TRIALS.c.number == number))
                trials.append(_trial(row))
            except (*_DAMAGE, UserError) as error:
                damaged[number] = error
        return trials, damaged

    def _rows(self, query: sa.Select) -> Sequence[sa.RowMapping]:
        return self._database.read(lambda connection: connection.execute(query).mappings().all())

    def _damaged(self, number: Any, error: Exception) -> UserError:
        return UserError(
            f"{self.location}: trial {number} is damaged ({_reason(error)}); search --resume "
            "trains it again"
        )

    def _has(self, number: int) -> sa.ColumnElement[bool]:
        return sa.and_(TRIALS.c.search_id == self._id, TRIALS.c.number == number)

    def _unknown(self, number: int) -> UserError:
        query = sa.select(sa.func.min(TRIALS.c.number), sa.func.max(TRIALS.c.number)).where(
            TRIALS.c.search_id == self._id
        )
        first, last = self._database.read(lambda connection: connection.execute(query).one())
        held = "no trials" if last is None else f"trials {first} to {last}"
        return UserError(f"no trial {number}: search {self.search_name!r} holds {held}")


def _checked(row: Mapping[Any, Any]) -> dict[Any, Any]:
    """Returns a row without its checksum.

    Raises:
      ValueError: the checksum is not that of the row.
    """
    columns = {name: value for name, value in row.items() if name != "checksum"}
    if row["checksum"] != checksum(columns):
        raise ValueError("its checksum is another")
    return columns


def _trial(row: Mapping[Any, Any]) -> Trial:
    """Returns the trial of a row; raises one of `_DAMAGE` for one that is damaged."""
    columns = _checked(row)
    del columns["search_id"]
    return Trial(**from_row(columns))


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def list_searches(
    location: str | Path, unnamed: str = "search", timeout_seconds: float = 10.0
) -> list[SearchSummary]:
    """Returns the searches of a database, oldest first.

    Args:
      location: that of `TrialStore`.
      unnamed: the name that the search of a version 1 file gets.

    Raises:
      UserError: the database cannot be used, or holds no tables of ours.
    """
    database = TrialDatabase(location, False, timeout_seconds)
    try:
        _prepare(database, unnamed, create=False)
        return database.read(_summaries)
    except (ValueError, TypeError) as error:
        raise database.problem(f"its list of searches is damaged ({_reason(error)})") from None
    finally:
        database.close()


def _prepare(database: TrialDatabase, search_name: str, create: bool) -> None:
    try:
        found = database.read(trial_schema.find_version)
        if found == 0 and not create:
            raise database.problem("holds no trials")
        # Ahead of the migration, which would write into a damaged file.
        if fault := database.read(trial_schema.find_damage):
            raise database.problem(f"is damaged: {fault}; put a copy of it in its place")
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
        # A damaged row: listing the others is worth more than an error.
        if state is not None and state not in TrialState.__members__:
            logging.warning("search %r has %d trials of no known state", name, count)
            continue
        counts = summary.counts | ({TrialState[state]: count} if state else {})
        rewards = [r for r in (summary.best_reward, reward) if r is not None]
        by_id[search_id] = SearchSummary(
            name, created, counts, summary.duplicates + duplicates, max(rewards, default=None)
        )
    return list(by_id.values())

"""The tables of a trial database, and how an older one becomes one of this version.

Columns have only types that SQLite and PostgreSQL share: the store itself turns a trial into plain
numbers and text. JSON is text, which keeps the order of keys; a state is its name, so that a new
one needs no change of the schema, as PostgreSQL's own enums would.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mnasdet.evaluation import objectives
from mnasdet.search.trials.trial import checksum, now

VERSION = 4

_METADATA = sa.MetaData()

_SCHEMA_VERSION = sa.Table("schema_version", _METADATA, sa.Column("version", sa.Integer))

SEARCHES = sa.Table(
    "searches",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("created", sa.DateTime, nullable=False),
    sa.Column("description", sa.Text),  # JSON
    sa.Column("checksum", sa.Text),  # `trial.checksum` of the other columns.
)

TRIALS = sa.Table(
    "trials",
    _METADATA,
    sa.Column("search_id", sa.ForeignKey(SEARCHES.c.id), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tokens", sa.Text, nullable=False),  # JSON
    sa.Column("architecture", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("duplicate_of", sa.Integer),
    sa.Column("worker", sa.Text),
    sa.Column("metrics", sa.Text, nullable=False),  # JSON
    sa.Column("accuracy", sa.Float(53)),
    sa.Column("cost", sa.Float(53)),
    sa.Column("reward", sa.Float(53)),
    sa.Column("error", sa.Text),
    sa.Column("started", sa.DateTime),
    sa.Column("finished", sa.DateTime),
    sa.Column("note", sa.Text),
    sa.Column("told_failed", sa.Integer, nullable=False, server_default="0"),
    sa.Column("checksum", sa.Text),  # `trial.checksum` of the other columns.
)

# Who works on a search: `lease`.
LEASES = sa.Table(
    "leases",
    _METADATA,
    sa.Column("search_id", sa.ForeignKey(SEARCHES.c.id), primary_key=True, autoincrement=False),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),  # JSON
    sa.Column("heartbeat", sa.Float(53), nullable=False),  # Seconds since 1970.
)

# The columns that `trials` had in version 1, which held one search and no table beside it.
_VERSION_1_COLUMNS = (
    "number",
    "tokens",
    "architecture",
    "key",
    "seed",
    "state",
    "duplicate_of",
    "worker",
    "metrics",
    "latency_ms",
    "reward",
    "error",
    "started",
    "finished",
)

# The columns that came with version 3, which has a table `leases` as well.
_VERSION_3_COLUMNS = {"searches": {"checksum"}, "trials": {"checksum", "told_failed"}}

# `trials` has these since version 4, and had `_OLD_COST` before.
_VERSION_4_COLUMNS = {"accuracy", "cost"}
_OLD_COST = "latency_ms"

# A lease of version 3 that was renewed within so many seconds has a holder.
_SIGN_OF_LIFE_SECONDS = 60.0

# Any constant; every process that makes or changes tables on a PostgreSQL server takes it.
_ADVISORY_LOCK = 0x6D6E6173


class UnknownSchemaError(Exception):
    """Tables that this program cannot use."""


def find_version(connection: sa.Connection) -> int:
    """Returns the version of a database's tables, at most `VERSION`; 0 where there are none yet.

    Raises:
      UnknownSchemaError: they are of a later version, or have our names but are none of ours.
    """
    inspector = sa.inspect(connection)
    ours = set(inspector.get_table_names()) & set(_METADATA.tables)
    columns = {table: {column["name"] for column in inspector.get_columns(table)} for table in ours}
    if not ours:
        return 0
    # Version 1 had no table that names the version.
    if ours == {"trials"} and columns["trials"] == set(_VERSION_1_COLUMNS):
        return 1
    if columns.get("schema_version") == {"version"}:
        versions = connection.execute(sa.select(_SCHEMA_VERSION.c.version)).scalars().all()
        if len(versions) == 1 and isinstance(versions[0], int):
            version = _known(versions[0])
            if columns == _columns_of(version):
                return version
    raise UnknownSchemaError(
        f"holds tables of another program ({', '.join(sorted(ours))}), or damaged ones; use a "
        "database, or on PostgreSQL a schema, of its own"
    )


def find_damage(connection: sa.Connection) -> str:
    """Returns the first thing that SQLite finds wrong with the structure of a file, or "".

    A server looks after its files itself.
    """
    if connection.dialect.name != "sqlite":
        return ""
    found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
    return "" if found == "ok" else str(found)


def _columns_of(version: int) -> dict[str, set[str]]:
    """Returns the names of the tables of a version from 2 on, and of their columns."""
    columns = {name: set(table.columns.keys()) for name, table in _METADATA.tables.items()}
    if version < 4:
        columns["trials"] = columns["trials"] - _VERSION_4_COLUMNS | {_OLD_COST}
    if version < 3:
        del columns["leases"]
        for table, later in _VERSION_3_COLUMNS.items():
            columns[table] -= later
    return columns


def lock(connection: sa.Connection) -> None:
    """Locks until the transaction ends: two programs that start at once would both make the tables.

    SQLite's transactions that write have the whole file to themselves.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ADVISORY_LOCK)))


def _known(version: int) -> int:
    if version > VERSION:
        raise UnknownSchemaError(
            f"has schema version {version}, and this mnasdet knows versions up to {VERSION}; "
            "use a newer mnasdet"
        )
    return version


def prepare(connection: sa.Connection, search_name: str) -> None:
    """Makes the tables, or brings older ones up to date, in the transaction of `connection`.

    Args:
      search_name: what the search of a version 1 database is called from now on.
    """
    lock(connection)
    # Looked up under the lock: another program may have made the tables meanwhile.
    found = find_version(connection)
    if found == 0:
        _METADATA.create_all(connection)
        connection.execute(_SCHEMA_VERSION.insert().values(version=VERSION))
        return
    if found == 3:
        _check_idle(connection)
    if found == 1:
        _copy_version_1(connection, search_name)
    if found == 2:
        _add_version_3_columns(connection)
    # Version 1 needs neither: its trials were copied into new tables.
    if found in (2, 3):
        _add_version_4_columns(connection)
    if found < VERSION:
        _complete_trials(connection, had_checksums=found == 3)
        if found < 3:
            set_checksum(connection, SEARCHES, sa.true())
        connection.execute(_SCHEMA_VERSION.delete())
        connection.execute(_SCHEMA_VERSION.insert().values(version=VERSION))


def _check_idle(connection: sa.Connection) -> None:
    """Raises UnknownSchemaError while an older mnasdet works on a search of the database.

    Its next trial would fail, and the children in training would be lost.
    """
    latest = time.time() - _SIGN_OF_LIFE_SECONDS
    working = sa.select(sa.func.count()).select_from(LEASES).where(LEASES.c.heartbeat > latest)
    if connection.execute(working).scalar_one():
        raise UnknownSchemaError(
            "holds a search that an older mnasdet works on; end it, or if it has just ended wait a "
            "minute, before this version opens the database"
        )


def add_search(connection: sa.Connection, name: str) -> int:
    """Returns the id of a search, which is made if missing."""
    lock(connection)
    # Looked up under the lock: another process may have added it meanwhile.
    search_id = find_search(connection, name)
    if search_id is not None:
        return search_id
    row = {"name": name, "created": now(), "description": None}
    add = SEARCHES.insert().values(row).returning(SEARCHES.c.id)
    search_id = connection.execute(add).scalar_one()
    set_checksum(connection, SEARCHES, SEARCHES.c.id == search_id)
    return search_id


def set_checksum(connection: sa.Connection, table: sa.Table, where: sa.ColumnElement) -> None:
    """Gives rows that were just written their checksums."""
    others = [column for column in table.columns if column.name != "checksum"]
    keys = list(table.primary_key.columns)
    for row in connection.execute(sa.select(*others).where(where)).mappings().all():
        is_row = sa.and_(*(key == row[key.name] for key in keys))
        connection.execute(table.update().where(is_row).values(checksum=checksum(row)))


def find_search(connection: sa.Connection, name: str) -> int | None:
    return connection.execute(sa.select(SEARCHES.c.id).where(SEARCHES.c.name == name)).scalar()


def _copy_version_1(connection: sa.Connection, search_name: str) -> None:
    """Copies the trials: SQLite cannot give a table another primary key."""
    connection.execute(sa.text("ALTER TABLE trials RENAME TO trials_version_1"))
    _METADATA.create_all(connection)
    search_id = add_search(connection, search_name)
    old = sa.table("trials_version_1", *map(sa.column, _VERSION_1_COLUMNS))
    # A type of its own on PostgreSQL.
    states = {"state": sa.cast(old.c.state, sa.Text)}
    values = [states.get(name, old.c[name]) for name in _VERSION_1_COLUMNS]
    names = ["cost" if name == _OLD_COST else name for name in _VERSION_1_COLUMNS]
    connection.execute(
        TRIALS.insert().from_select(
            ["search_id", *names], sa.select(sa.literal(search_id), *values)
        )
    )
    connection.execute(sa.text("DROP TABLE trials_version_1"))
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("DROP TYPE trialstate"))


def _add_version_3_columns(connection: sa.Connection) -> None:
    for table in ("searches", "trials"):
        connection.execute(sa.text(f"ALTER TABLE {table} ADD COLUMN checksum TEXT"))
    connection.execute(
        sa.text("ALTER TABLE trials ADD COLUMN told_failed INTEGER DEFAULT '0' NOT NULL")
    )
    LEASES.create(connection)


def _add_version_4_columns(connection: sa.Connection) -> None:
    connection.execute(sa.text(f"ALTER TABLE trials RENAME COLUMN {_OLD_COST} TO cost"))
    connection.execute(sa.text("ALTER TABLE trials ADD COLUMN accuracy FLOAT"))


def _complete_trials(connection: sa.Connection, had_checksums: bool) -> None:
    """Gives the trials of an older version their accuracy, and a new checksum.

    Args:
      had_checksums: a row whose checksum is wrong stays as it is: damaged.
    """
    is_row = sa.and_(
        TRIALS.c.search_id == sa.bindparam("of_search"), TRIALS.c.number == sa.bindparam("of_trial")
    )
    # Some drivers name parameters after columns: these are called otherwise.
    change = (
        TRIALS.update()
        .where(is_row)
        .values(accuracy=sa.bindparam("new_accuracy"), checksum=sa.bindparam("new_checksum"))
    )
    changes = []
    for found in _readable_rows(connection):
        row = dict(found)
        held = row.pop("checksum")
        del row["accuracy"]
        old = {_OLD_COST if name == "cost" else name: value for name, value in row.items()}
        # A new checksum would make the damage good.
        if had_checksums and held != checksum(old):
            continue
        row["accuracy"] = _old_accuracy(row)
        changes.append(
            {
                "of_search": row["search_id"],
                "of_trial": row["number"],
                "new_accuracy": row["accuracy"],
                "new_checksum": checksum(row),
            }
        )
    if changes:
        connection.execute(change, changes)


def _readable_rows(connection: sa.Connection) -> Sequence[sa.RowMapping]:
    """Returns all trials but those with a value that is not of its column's type."""
    try:
        return connection.execute(sa.select(TRIALS)).mappings().all()
    except (TypeError, ValueError):
        pass
    numbers = connection.execute(sa.select(TRIALS.c.search_id, TRIALS.c.number)).all()
    rows: list[sa.RowMapping] = []
    for search_id, number in numbers:
        is_it = sa.and_(TRIALS.c.search_id == search_id, TRIALS.c.number == number)
        with contextlib.suppress(TypeError, ValueError):
            rows += connection.execute(sa.select(TRIALS).where(is_it)).mappings().all()
    return rows


def _old_accuracy(row: Mapping[str, Any]) -> float | None:
    """Returns the accuracy of a trial that has none in a column of its own."""
    try:
        value = json.loads(row["metrics"]).get(objectives.FIRST)
        # pycocotools says -1 where there is nothing to find; JSON has null for NaN.
        return None if value is None or row["state"] != "COMPLETE" else max(float(value), 0.0)
    except (ValueError, TypeError, AttributeError):
        return None  # A damaged row, which its reader names.

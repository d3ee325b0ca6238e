"""The tables of a trial database, and how an older one becomes one of this version.

Columns have only types that SQLite and PostgreSQL share: the store itself turns a trial into plain
numbers and text. JSON is text, which keeps the order of keys; a state is its name, so that a new
one needs no change of the schema, as PostgreSQL's own enums would.
"""

from __future__ import annotations

import sqlalchemy as sa

from mnasdet.search.trial import now

VERSION = 2

_METADATA = sa.MetaData()

_SCHEMA_VERSION = sa.Table("schema_version", _METADATA, sa.Column("version", sa.Integer))

SEARCHES = sa.Table(
    "searches",
    _METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("created", sa.DateTime, nullable=False),
    sa.Column("description", sa.Text),  # JSON
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
    sa.Column("latency_ms", sa.Float(53)),
    sa.Column("reward", sa.Float(53)),
    sa.Column("error", sa.Text),
    sa.Column("started", sa.DateTime),
    sa.Column("finished", sa.DateTime),
    sa.Column("note", sa.Text),
)

# What `trials` had in version 1, which held one search and no table beside it.
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

# Any constant; taken by whoever makes or changes tables on a PostgreSQL server.
_ADVISORY_LOCK = 0x6D6E6173


class UnknownSchemaError(Exception):
    """Tables that this program cannot use."""


def find_version(connection: sa.Connection) -> int:
    """The version of the tables in a database, at most `VERSION`; 0 where there are none yet.

    Raises:
      UnknownSchemaError: they are of a later version, or have our names but are none of ours.
    """
    inspector = sa.inspect(connection)
    ours = set(inspector.get_table_names()) & set(_METADATA.tables)
    columns = {table: {column["name"] for column in inspector.get_columns(table)} for table in ours}
    if not ours:
        return 0
    if ours == {"trials"} and columns["trials"] == set(_VERSION_1_COLUMNS):
        return 1
    if ours == set(_METADATA.tables) and columns["schema_version"] == {"version"}:
        return _known(connection.execute(sa.select(_SCHEMA_VERSION.c.version)).scalar_one())
    raise UnknownSchemaError(
        f"holds tables of another program ({', '.join(sorted(ours))}); use a database, or on "
        "PostgreSQL a schema, of its own"
    )


def _lock(connection: sa.Connection) -> None:
    """Until the transaction ends: two programs that start at once both find nothing and make it.

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
    _lock(connection)
    found = find_version(connection)
    if found == 0:
        _METADATA.create_all(connection)
        connection.execute(_SCHEMA_VERSION.insert().values(version=VERSION))
    elif found == 1:
        _version_1_to_2(connection, search_name)


def add_search(connection: sa.Connection, name: str) -> int:
    """The id of a search, made if missing."""
    _lock(connection)
    search_id = find_search(connection, name)
    if search_id is not None:
        return search_id
    row = {"name": name, "created": now()}
    return connection.execute(SEARCHES.insert().values(row).returning(SEARCHES.c.id)).scalar_one()


def find_search(connection: sa.Connection, name: str) -> int | None:
    return connection.execute(sa.select(SEARCHES.c.id).where(SEARCHES.c.name == name)).scalar()


def _version_1_to_2(connection: sa.Connection, search_name: str) -> None:
    """Copies the trials: SQLite cannot give a table another primary key.

    When version 3 comes, this needs the tables of version 2 as they are now.
    """
    connection.execute(sa.text("ALTER TABLE trials RENAME TO trials_version_1"))
    _METADATA.create_all(connection)
    connection.execute(_SCHEMA_VERSION.insert().values(version=VERSION))
    search_id = add_search(connection, search_name)
    old = sa.table("trials_version_1", *map(sa.column, _VERSION_1_COLUMNS))
    # A type of its own on PostgreSQL.
    states = {"state": sa.cast(old.c.state, sa.Text)}
    values = [states.get(name, old.c[name]) for name in _VERSION_1_COLUMNS]
    connection.execute(
        TRIALS.insert().from_select(
            ["search_id", *_VERSION_1_COLUMNS], sa.select(sa.literal(search_id), *values)
        )
    )
    connection.execute(sa.text("DROP TABLE trials_version_1"))
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("DROP TYPE trialstate"))

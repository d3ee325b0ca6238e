"""The trials of a search in a database: what was proposed, what came of it."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mnasdet.errors import UserError


class TrialState(enum.Enum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One architecture that a search looked at.

    Attributes:
      number: from 0, in the order of the proposals.
      tokens: choices in the search space.
      architecture: text proto.
      key: `canonical_key` of the network: equal keys, equal networks.
      seed: of the child's training.
      state: see `TrialState`.
      duplicate_of: the earlier trial with the same key, whose result this one takes.
      worker: what trained the child.
      metrics: COCO metrics, params and multiply_adds.
      latency_ms: by the search's latency source.
      reward: None unless complete.
      error: why it failed, one line.
      started, finished: UTC.
    """

    number: int
    tokens: tuple[int, ...]
    architecture: str
    key: str
    seed: int
    state: TrialState = TrialState.PENDING
    duplicate_of: int | None = None
    worker: str | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    latency_ms: float | None = None
    reward: float | None = None
    error: str | None = None
    started: datetime.datetime | None = None
    finished: datetime.datetime | None = None

    @property
    def is_finished(self) -> bool:
        return self.state in (TrialState.COMPLETE, TrialState.FAILED)


class _Json(sa.types.TypeDecorator):
    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return json.dumps(value)

    def process_result_value(self, value, dialect):
        return json.loads(value)


_SCHEMA = sa.MetaData()
_TRIALS = sa.Table(
    "trials",
    _SCHEMA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("tokens", _Json, nullable=False),
    sa.Column("architecture", sa.Text, nullable=False),
    sa.Column("key", sa.String(32), nullable=False, index=True),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Enum(TrialState), nullable=False),
    sa.Column("duplicate_of", sa.Integer),
    sa.Column("worker", sa.Text),
    sa.Column("metrics", _Json, nullable=False),
    sa.Column("latency_ms", sa.Float),
    sa.Column("reward", sa.Float),
    sa.Column("error", sa.Text),
    sa.Column("started", sa.DateTime),
    sa.Column("finished", sa.DateTime),
)


class TrialStore:
    """Trials in an SQLite file or any database that SQLAlchemy reaches.

    Every change is one transaction: a process that is killed leaves whole trials behind.
    """

    def __init__(self, location: str | Path):
        """`location`: a file, made if missing, or an SQLAlchemy URL."""
        url = str(location) if "://" in str(location) else f"sqlite:///{location}"
        self._location = location
        self._engine = sa.create_engine(url)
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _use_write_ahead_log)
        try:
            _SCHEMA.create_all(self._engine)
        except sa.exc.DatabaseError as error:
            raise UserError(f"{location}: cannot be used as a trial store: {error.orig}") from None

    def add(self, trials: Sequence[Trial]) -> None:
        """Writes new trials, all of them or none."""
        if trials:
            with self._engine.begin() as connection:
                connection.execute(_TRIALS.insert(), [_row(trial) for trial in trials])

    def update(self, trial: Trial, **changes: Any) -> Trial:
        """Changes fields of a stored trial and returns it as it is now."""
        with self._engine.begin() as connection:
            connection.execute(
                _TRIALS.update().where(_TRIALS.c.number == trial.number).values(**changes)
            )
        return dataclasses.replace(trial, **changes)

    def trials(self) -> list[Trial]:
        """All of them, by number."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(_TRIALS).order_by(_TRIALS.c.number))
            return [_trial(row) for row in rows.mappings()]

    def close(self) -> None:
        self._engine.dispose()


def now() -> datetime.datetime:
    """UTC, without a zone: SQLite keeps none."""
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


def _row(trial: Trial) -> dict[str, Any]:
    # Not `asdict`, which copies deeply.
    return {column.name: getattr(trial, column.name) for column in _TRIALS.columns}


def _trial(row: Any) -> Trial:
    return Trial(**(dict(row) | {"tokens": tuple(row["tokens"])}))


def _use_write_ahead_log(connection, record) -> None:
    """Readers (a report, a second terminal) never block the search."""
    connection.execute("PRAGMA journal_mode=WAL")
    # A killed process loses nothing; only a power cut can lose the last trials.
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA busy_timeout=30000")

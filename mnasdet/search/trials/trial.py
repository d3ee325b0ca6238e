"""One trial of a search, and its form as a row of a database."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any


class TrialState(enum.Enum):
    PENDING = "pending"
    RUNNING = "running"
    COMPLETE = "complete"
    FAILED = "failed"
    REJECTED = "rejected"
    """Over a limit of the search: never trained, `error` says which."""


_FINISHED = (TrialState.COMPLETE, TrialState.FAILED, TrialState.REJECTED)


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
      metrics: of the evaluation, and params and multiply_adds.
      accuracy: the metric that counts, 0 or more; None unless complete.
      cost: by the search's latency source, in its unit.
      reward: None unless complete.
      error: why it failed or was rejected, one line.
      started, finished: UTC.
      note: the user's.
      told_failed: the controller was told that the trial failed, and proposed later trials knowing
        it. The trial was trained again since; its new result counts for everything else.
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
    accuracy: float | None = None
    cost: float | None = None
    reward: float | None = None
    error: str | None = None
    started: datetime.datetime | None = None
    finished: datetime.datetime | None = None
    note: str | None = None
    told_failed: bool = False

    @property
    def is_finished(self) -> bool:
        return self.state in _FINISHED

    @property
    def seconds(self) -> float | None:
        """Returns the seconds from start to end; None for a trial without an end or a training."""
        if self.started is None or self.finished is None:
            return None
        return (self.finished - self.started).total_seconds()


def now() -> datetime.datetime:
    """Returns UTC, without a zone: SQLite keeps none."""
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


def fields(trial: Trial) -> dict[str, Any]:
    """Returns all of a trial by name; `dataclasses.asdict` copies deeply, which is slow."""
    return {field.name: getattr(trial, field.name) for field in dataclasses.fields(trial)}


def to_row(fields: dict[str, Any]) -> dict[str, Any]:
    """Converts fields of a trial to numbers, text and times that both databases keep alike.

    A metric that is NaN or infinite becomes null, which is what JSON has for it, and NaN when it is
    read: one such figure is no reason to lose a trained child. Accuracy, cost and reward have to be
    finite, for the controller learns from them, and SQLite would keep NaN as "no reward".

    Raises:
      ValueError: the accuracy, the cost or the reward is not finite.
    """
    return {
        name: value if value is None else _TO_COLUMN.get(name, _unchanged)(value)
        for name, value in fields.items()
    }


def from_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Returns the fields that `to_row` made columns of."""
    return {
        name: value if value is None else _FROM_COLUMN.get(name, _unchanged)(value)
        for name, value in row.items()
    }


def checksum(row: Mapping[Any, Any]) -> str:
    """Returns what tells whether a row of the database is as it was written.

    A disk or a copy that changes a bit leaves a row that still reads well. SQLite itself keeps no
    checksums.

    Args:
      row: all columns but the checksum, in any order.
    """
    # Sorted: databases give the columns in an order of their own. `default` is for times.
    content = json.dumps(sorted(row.items()), default=str)
    return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def _unchanged(value: Any) -> Any:
    return value


def _text(value: str) -> str:
    """Returns a text that both databases keep.

    PostgreSQL keeps no NUL, and neither database half a surrogate pair; a child's error may have
    both.
    """
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _finite(value: float) -> float:
    # numpy's numbers are bytes to SQLite.
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"an accuracy, cost or reward of {number} is not allowed")
    return number + 0.0  # SQLite has no -0.0.


def _utc(time: datetime.datetime) -> datetime.datetime:
    return time.astimezone(datetime.timezone.utc).replace(tzinfo=None) if time.tzinfo else time


def _metrics_text(metrics: dict[str, float]) -> str:
    return json.dumps(
        {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    )


def _metrics(text: str) -> dict[str, float]:
    metrics = json.loads(text)
    return {name: math.nan if value is None else value for name, value in metrics.items()}


_TO_COLUMN: dict[str, Callable[[Any], Any]] = {
    "number": int,
    "seed": int,
    "duplicate_of": int,
    "told_failed": int,
    "tokens": json.dumps,
    "architecture": _text,
    "state": lambda state: state.name,
    "worker": _text,
    "metrics": _metrics_text,
    "accuracy": _finite,
    "cost": _finite,
    "reward": _finite,
    "error": _text,
    "started": _utc,
    "finished": _utc,
    "note": _text,
}
_FROM_COLUMN: dict[str, Callable[[Any], Any]] = {
    "told_failed": bool,
    "tokens": lambda text: tuple(json.loads(text)),
    "state": TrialState.__getitem__,
    "metrics": _metrics,
}

"""Trials as CSV and JSON, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from mnasdet import files
from mnasdet.architecture_string.conversion import to_string
from mnasdet.architectures import from_trial
from mnasdet.errors import UserError
from mnasdet.search.trials.trial_store import Trial, TrialStore

_COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    # Without the time of day: the same trials give the same file.
    ".gz": lambda content: gzip.compress(content, mtime=0),
    ".xz": lzma.compress,
}

# A spreadsheet computes what begins so, and a formula may send the table away. Notes and errors are
# of others.
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\n")

_SUMMARY = ("number", "state", "reward", "accuracy", "cost", "duplicate_of", "note", "error")


def write(path: str | Path, store: TrialStore) -> int:
    """Writes all trials of a search with all their fields, and returns how many they are.

    Args:
      path: ends in .csv or .json, and in .gz or .xz behind that if it is to be compressed.

    Raises:
      UserError: it has another ending.
    """
    # Before the trials are read, which may take a while.
    to_text, compress = _form(Path(path).name)
    trials = store.trials()
    files.write(path, compress(to_text(store, trials).encode()))
    return len(trials)


def to_dict(trial: Trial) -> dict[str, Any]:
    """Returns all fields as JSON has them, and the seconds from start to end.

    Times are in ISO format; a metric that is no number is None.
    """
    return {
        "number": trial.number,
        "state": trial.state.value,
        "reward": trial.reward,
        "accuracy": trial.accuracy,
        "cost": trial.cost,
        "duplicate_of": trial.duplicate_of,
        "error": trial.error,
        "note": trial.note,
        "told_failed": trial.told_failed,
        "worker": trial.worker,
        "seed": trial.seed,
        "started": trial.started and f"{trial.started.isoformat()}Z",
        "finished": trial.finished and f"{trial.finished.isoformat()}Z",
        "seconds": trial.seconds,
        "key": trial.key,
        "tokens": list(trial.tokens),
        "metrics": {
            name: value if math.isfinite(value) else None for name, value in trial.metrics.items()
        },
        "architecture": trial.architecture,
    }


def summary(trial: Trial) -> dict[str, Any]:
    """Returns what tells the trials of a search apart."""
    described = to_dict(trial)
    return {name: described[name] for name in _SUMMARY}


def structure(architecture: str) -> str | None:
    """Returns a text proto as an architecture string; None if this mnasdet cannot read it."""
    try:
        parsed = from_trial(architecture)
    except text_format.ParseError:
        return None
    return to_string(parsed)


def _form(name: str) -> tuple[Callable[[TrialStore, Sequence[Trial]], str], Callable]:
    for suffix, to_text in {".csv": _csv, ".json": _json}.items():
        for ending, compress in _COMPRESSIONS.items():
            if name.endswith(suffix + ending):
                return to_text, compress
    raise UserError(f"{name}: the file has to end in .csv or .json, and .gz or .xz behind that")


def _csv(store: TrialStore, trials: Sequence[Trial]) -> str:
    """Returns a line a trial and a column for every metric that any of them has, `metrics.NAME`.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    rows = [_flat(to_dict(trial)) for trial in trials]
    columns = dict.fromkeys(_flat(to_dict(Trial(0, (), "", "", 0))))
    for row in rows:
        columns.update(dict.fromkeys(row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_cell, columns))
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    """Returns a cell that no spreadsheet computes; a number, which may be negative, as it is."""
    if not isinstance(value, str):
        return value
    # Python's writer does not quote a carriage return, after which readers begin a new row.
    lines = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{lines}" if lines.startswith(_FORMULA_SIGNS) else lines


def _flat(trial: dict[str, Any]) -> dict[str, Any]:
    metrics = {f"metrics.{name}": value for name, value in trial.pop("metrics").items()}
    return trial | {"tokens": " ".join(map(str, trial["tokens"]))} | metrics


def _json(store: TrialStore, trials: Sequence[Trial]) -> str:
    content = {
        "search_name": store.search_name,
        "description": store.description(),
        "trials": [to_dict(trial) for trial in trials],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"

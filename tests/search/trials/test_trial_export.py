"""Exported trials, read back by the standard library's own readers."""

import csv
import dataclasses
import datetime
import gzip
import json
import lzma
import math
from contextlib import closing

import pytest

from mnasdet.errors import UserError
from mnasdet.evaluation.coco import MAP
from mnasdet.search.trials import trial_export
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore

TRIALS = [
    Trial(
        number=0,
        tokens=(1, 20),
        architecture='name: "a, é"\nsource: "b"\n',
        key="k",
        seed=7,
        state=TrialState.COMPLETE,
        worker="w",
        metrics={MAP: 0.1 + 0.2, "params": 5, "none": math.nan},
        accuracy=0.1 + 0.2,
        cost=1.5,
        reward=1e-7,
        started=datetime.datetime(2025, 1, 2, 3, 4, 5),
        finished=datetime.datetime(2025, 1, 2, 3, 4, 6, 500000),
        note="as said",
    ),
    Trial(1, (1, 21), "", "k", 8, state=TrialState.FAILED, error='of "b"', duplicate_of=0),
    Trial(2, (), "", "l", 9, metrics={"multiply_adds": 6}),
]


@pytest.fixture
def store(tmp_path):
    store = TrialStore(tmp_path / "trials.db", "mine")
    store.add(TRIALS)
    store.describe({"seed": 7})
    yield store
    store.close()


OPENERS = {"": open, ".gz": gzip.open, ".xz": lzma.open}


@pytest.mark.parametrize("ending", OPENERS)
def test_csv_has_a_column_for_every_field_and_metric(ending, store, tmp_path):
    path = tmp_path / f"trials.csv{ending}"
    assert trial_export.write(path, store) == 3
    with OPENERS[ending](path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "number": "0",
        "state": "complete",
        "reward": "1e-07",
        "accuracy": "0.30000000000000004",
        "cost": "1.5",
        "duplicate_of": "",
        "error": "",
        "note": "as said",
        "told_failed": "False",
        "worker": "w",
        "seed": "7",
        "started": "2025-01-02T03:04:05Z",
        "finished": "2025-01-02T03:04:06.500000Z",
        "seconds": "1.5",
        "key": "k",
        "tokens": "1 20",
        "architecture": 'name: "a, é"\nsource: "b"\n',
        f"metrics.{MAP}": "0.30000000000000004",
        "metrics.params": "5",
        "metrics.none": "",
        "metrics.multiply_adds": "",
    }
    assert [row["error"] for row in rows] == ["", 'of "b"', ""]
    assert [row["metrics.multiply_adds"] for row in rows] == ["", "", "6"]


FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1"]


def test_a_carriage_return_begins_no_row(tmp_path):
    with closing(TrialStore(tmp_path / "trials.db", "mine")) as store:
        store.add([dataclasses.replace(TRIALS[0], note="a\r=1+1,b\r\nc")])
        trial_export.write(tmp_path / "trials.csv", store)
    with open(tmp_path / "trials.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["note"] == "a\n=1+1,b\nc"


@pytest.mark.parametrize("formula", FORMULAS)
def test_no_cell_is_a_formula(formula, tmp_path):
    with closing(TrialStore(tmp_path / "trials.db", "mine")) as store:
        store.add([dataclasses.replace(
            TRIALS[0], note=formula, error=formula, worker=formula, key=formula, reward=-0.5,
            architecture=formula, metrics={MAP: -1.0, formula: 2.0},
        )])  # fmt: skip
        trial_export.write(tmp_path / "trials.csv", store)
        trial_export.write(tmp_path / "trials.json", store)
    with open(tmp_path / "trials.csv", newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    for name in ("note", "error", "worker", "key", "architecture"):
        assert row[name] == f"'{formula}".replace("\r", "\n")
    assert (row["reward"], row[f"metrics.{MAP}"]) == ("-0.5", "-1.0")
    assert row[f"metrics.{formula}".replace("\r", "\n")] == "2.0"
    (trial,) = json.loads((tmp_path / "trials.json").read_text())["trials"]
    assert [trial[name] for name in ("note", "error", "worker", "key")] == [formula] * 4


@pytest.mark.parametrize("ending", OPENERS)
def test_json(ending, store, tmp_path):
    path = tmp_path / f"trials.json{ending}"
    assert trial_export.write(path, store) == 3
    with OPENERS[ending](path, "rt") as file:
        content = json.load(file, parse_constant=pytest.fail)
    assert content["search_name"] == "mine"
    assert content["description"] == {"seed": 7}
    assert [trial["number"] for trial in content["trials"]] == [0, 1, 2]
    first = content["trials"][0]
    assert first["tokens"] == [1, 20]
    assert first["metrics"] == {MAP: 0.1 + 0.2, "params": 5, "none": None}
    assert first["finished"] == "2025-01-02T03:04:06.500000Z"


def test_every_field_is_exported():
    exported = trial_export.to_dict(TRIALS[0])
    assert set(exported) == {*TRIALS[0].__dataclass_fields__, "seconds"}


def test_no_trials_give_a_header(tmp_path):
    store = TrialStore(tmp_path / "trials.db")
    assert trial_export.write(tmp_path / "trials.csv", store) == 0
    store.close()
    (header,) = (tmp_path / "trials.csv").read_text().splitlines()
    assert header.startswith("number,state,reward,")


def test_the_same_trials_give_the_same_file(store, tmp_path):
    trial_export.write(tmp_path / "a.csv.gz", store)
    trial_export.write(tmp_path / "b.csv.gz", store)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()


@pytest.mark.parametrize("name", ["trials", "trials.txt", "trials.csv.zip", "trials.gz"])
def test_other_endings(name, store, tmp_path):
    with pytest.raises(UserError, match=f"{name}: the file has to end in .csv or .json"):
        trial_export.write(tmp_path / name, store)
    assert not (tmp_path / name).exists()


def test_structure():
    text = "backbone { mobilenet_v2 {} } image_size: 320"
    assert trial_export.structure(text) == "mobilenet_v2/net_i320"
    assert trial_export.structure("of_another_version: 1") is None

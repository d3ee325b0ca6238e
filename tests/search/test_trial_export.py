"""Exported trials, read back by the standard library's own readers."""

import csv
import datetime
import gzip
import json
import lzma
import math

import pytest

from mnasdet.errors import UserError
from mnasdet.evaluation.coco import MAP
from mnasdet.search import trial_export
from mnasdet.search.trial_store import Trial, TrialState, TrialStore

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
        latency_ms=1.5,
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
        "latency_ms": "1.5",
        "duplicate_of": "",
        "error": "",
        "note": "as said",
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

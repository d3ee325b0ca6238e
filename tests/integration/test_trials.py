"""scripts/trials.py as a command."""

import csv
import dataclasses
import datetime
import functools
import json
import lzma
import os
import re
import shutil
import sqlite3
import subprocess
from contextlib import closing

import pytest

from mnasdet.evaluation.coco import MAP
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore
from tests.integration.commands import ROOT, command, run
from tests.search.postgresql import PASSWORD, running_server

trials = functools.partial(run, "trials")

ARCHITECTURE = "backbone { mobilenet_v2 {} }\nimage_size: 320\n"
START = datetime.datetime(2025, 1, 2, 3, 4, 5)


def complete(number, accuracy, cost, **fields):
    return Trial(
        number=number,
        tokens=(number, 1),
        architecture=ARCHITECTURE,
        key=f"key {number}",
        seed=100 + number,
        state=TrialState.COMPLETE,
        worker="worker 0",
        metrics={MAP: accuracy, "params": 2223872},
        accuracy=accuracy,
        cost=cost,
        reward=accuracy / 2,
        started=START,
        finished=START + datetime.timedelta(seconds=90),
        **fields,
    )


TRIALS = [
    complete(0, 0.25, 20.0),
    complete(1, 0.5, 40.0),
    Trial(2, (2, 1), ARCHITECTURE, "b", 102, state=TrialState.FAILED, error="diverged " * 20),
    complete(3, 0.25, 20.0, duplicate_of=0),
    Trial(4, (4, 1), ARCHITECTURE, "c", 104, state=TrialState.REJECTED, error="too large"),
    complete(5, 0.375, 10.0, note="fast"),
    Trial(6, (6, 1), ARCHITECTURE, "d", 106, state=TrialState.RUNNING, cost=15.0),
]


def fill(location, name, content):
    store = TrialStore(location, name)
    store.add(content)
    store.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One folder with a search, and one whose store holds two."""
    root = tmp_path_factory.mktemp("runs")
    for name in ("one", "two"):
        (root / name).mkdir()
    fill(root / "one" / "trials.db", "one", TRIALS)
    fill(root / "two" / "trials.db", "mnasfpn", TRIALS[:2])
    other = [complete(0, 0.25, 20.0), *(complete(n, 0.001 * n, 50.0) for n in range(10, 21))]
    fill(root / "two" / "trials.db", "nas_fpn", other)
    return root


@pytest.fixture
def store(folders, tmp_path):
    """The folder with one search, to be changed."""
    return f"--store={shutil.copytree(folders / 'one', tmp_path / 'one')}"


def numbers(*arguments):
    done = trials(*arguments, "--format=json")
    return [trial["number"] for trial in json.loads(done.stdout)["trials"]]


def test_the_table(folders):
    done = trials(f"--store={folders}/one")
    lines = done.stdout.splitlines()
    assert lines[0] == "search one: 7 trials"
    assert lines[1].split("  ")[0] == "number"
    assert [line.split()[:2] for line in lines[2:]] == [
        [str(trial.number), trial.state.value] for trial in TRIALS
    ]
    assert lines[3].split() == ["1", "complete", "0.2500", "0.5000", "40.000"]
    assert lines[4].endswith(" diverged diver…")
    assert lines[5].split() == ["3", "complete", "0.1250", "0.2500", "20.000", "0"]
    assert lines[7].split()[-1] == "fast"
    assert max(map(len, lines)) < 160


def test_the_table_as_json(folders):
    done = trials(f"--store={folders}/one/trials.db", "--format=json")
    result = json.loads(done.stdout)
    assert (result["search_name"], result["num_trials"]) == ("one", 7)
    assert result["trials"][5] == {
        "number": 5,
        "state": "complete",
        "reward": 0.1875,
        "accuracy": 0.375,
        "cost": 10.0,
        "duplicate_of": None,
        "note": "fast",
        "error": None,
    }


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        # Among trials with equal values, or without the value, the earlier comes first.
        (["--sort=reward"], [1, 5, 0, 3, 2, 4, 6]),
        (["--sort=accuracy", "--limit=3"], [1, 5, 0]),
        (["--sort=cost"], [5, 6, 0, 3, 1, 2, 4]),
        (["--state=complete", "--sort=cost", "--limit=2"], [5, 0]),
        (["--state=pending"], []),
        (["--limit=2"], [0, 1]),
    ],
)
def test_order_and_choice(arguments, expected, folders):
    assert numbers(f"--store={folders}/one", *arguments) == expected


def test_searches(folders):
    done = trials(f"--store={folders}/two", "--searches")
    header, first, second = done.stdout.splitlines()
    assert header.split()[-2:] == ["best", "reward"]
    assert first.split()[0] == "mnasfpn"
    assert first.split()[2:] == ["2", "0", "0", "2", "0", "0", "0", "0.2500"]
    assert second.split()[0] == "nas_fpn"
    searches = json.loads(trials(f"--store={folders}/two", "--searches", "--format=json").stdout)[
        "searches"
    ]
    assert [search["name"] for search in searches] == ["mnasfpn", "nas_fpn"]
    assert searches[1]["complete"] == 12


def test_one_trial_in_full(folders):
    done = trials(f"--store={folders}/one", "--show=5")
    for line in (
        "state: complete",
        "seconds: 90.0",
        "started: 2025-01-02T03:04:05Z",
        "note: fast",
        f"  {MAP}: 0.375",
        "structure: mobilenet_v2/net_i320",
        "  image_size: 320",
    ):
        assert line in done.stdout.splitlines()
    shown = json.loads(trials(f"--store={folders}/one", "--show=5", "--format=json").stdout)
    assert shown["structure"] == "mobilenet_v2/net_i320"
    assert shown["architecture"] == ARCHITECTURE
    assert shown["tokens"] == [5, 1]


@pytest.mark.parametrize("name", ["out.csv", "new/out.json.xz"])
def test_export(name, folders, tmp_path):
    path = tmp_path / name
    done = trials(f"--store={folders}/one", f"--export={path}", "--format=json")
    assert json.loads(done.stdout) == {"path": str(path), "trials": 7}
    if name.endswith(".csv"):
        rows = list(csv.DictReader(path.read_text().splitlines(keepends=True)))
        assert [row["seed"] for row in rows] == [str(trial.seed) for trial in TRIALS]
    else:
        content = json.loads(lzma.decompress(path.read_bytes()))
        assert [trial["seed"] for trial in content["trials"]] == [trial.seed for trial in TRIALS]


def test_a_note_is_written_and_removed(store):
    done = trials(store, "--mark=2", "--note=größer?")
    assert done.stdout == "trial 2: größer?\n"
    assert json.loads(trials(store, "--show=2", "--format=json").stdout)["note"] == "größer?"
    done = trials(store, "--mark=2", "--note=", "--format=json")
    assert json.loads(done.stdout) == {"number": 2, "note": None}
    assert json.loads(trials(store, "--show=2", "--format=json").stdout)["note"] is None


def test_comparison(folders):
    both = [f"--store={folders}/one", f"--compare={folders}/two", "--compare_search_name=nas_fpn"]
    lines = trials(*both).stdout.splitlines()
    rows = {line[:20].strip(): line[20:].split() for line in lines[1:-2]}
    assert lines[0].split() == ["one", "nas_fpn"]
    assert rows["trials"] == ["7", "12"]
    assert rows["best accuracy"] == ["0.5000", "0.2500"]
    # Out to 50 ms: 0.375 from 10 ms and another 0.125 from 40 ms on, against 0.25 from 20 ms on.
    assert rows["hypervolume"] == ["16.2500", "7.5000"]
    assert rows["best reward after 10"] == ["0.1250"], "the first search has no 10 trials yet"
    assert "1 architectures are in both" in lines
    result = json.loads(trials(*both, "--format=json").stdout)
    assert result["reference"] == {"accuracy": 0.0, "cost": 50.0}
    assert [search["search_name"] for search in result["searches"]] == ["one", "nas_fpn"]
    assert [search["best_reward_after"] for search in result["searches"]] == [
        {"10": None},
        {"10": 0.125},
    ]


def test_a_version_1_file_takes_the_name_of_its_folder(tmp_path):
    (tmp_path / "quickstart").mkdir()
    path = tmp_path / "quickstart" / "trials.db"
    columns = "number, tokens, architecture, key, seed, state, duplicate_of, worker, metrics, "
    columns += "latency_ms, reward, error, started, finished"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE trials ({columns}, PRIMARY KEY (number))")
        connection.execute(
            "INSERT INTO trials (number, tokens, architecture, key, seed, state, metrics) "
            "VALUES (0, '[]', '', 'k', 0, 'PENDING', '{}')"
        )
    done = trials(f"--store={path}")
    assert done.stdout.splitlines()[0] == "search quickstart: 1 trials"


def test_tensorflow_is_not_loaded(folders):
    profiled = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    for action in ("--show=0", f"--compare={folders}/one"):
        words = command("trials", f"--store={folders}/one", action)
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=profiled)
        assert done.returncode == 0
        assert "sqlalchemy" in done.stderr
        assert "tensorflow" not in done.stderr


@pytest.fixture(scope="module")
def server():
    with running_server() as server:
        yield server


def test_a_store_on_a_server(server, folders):
    url = server.new_database()
    fill(url, "shared", TRIALS)
    assert numbers(f"--store={url}", "--sort=reward", "--limit=2") == [1, 5]
    trials(f"--store={url}", "--mark=0", "--note=on the server")
    shown = json.loads(trials(f"--store={url}", "--show=0", "--format=json").stdout)
    assert shown["note"] == "on the server"
    done = trials(f"--store={url}", f"--compare={folders}/one", "--format=json")
    assert json.loads(done.stdout)["shared_architectures"] == 7
    assert PASSWORD not in done.stdout
    done = trials(f"--store={server.url('missing')}", status=1)
    assert done.stderr.count("\n") == 1
    assert 'database "missing" does not exist' in done.stderr
    assert "word" not in done.stderr


def test_text_from_outside_forges_no_line_and_does_nothing_to_the_terminal(tmp_path):
    evil = "\x1b[2Jabc\u202e\nreward: 0.99\r\n7       complete"
    line = r"\x1b[2Jabc\u202e reward: 0.99 7 complete"
    path = tmp_path / "trials.db"
    content = complete(0, 0.25, 20.0, note=evil, error=evil)
    fill(path, "a", [dataclasses.replace(content, worker=evil, metrics={MAP: 0.25, evil: 1.0})])
    table = trials(f"--store={path}").stdout
    # A note has 40 characters at most.
    assert table.count(line[:39]) == 2
    assert [row.split()[0] for row in table.splitlines()] == ["search", "number", "0"]
    shown = trials(f"--store={path}", "--show=0").stdout
    rows = shown.splitlines()
    for name in ("note", "error", "worker"):
        at = rows.index(rf"{name}: \x1b[2Jabc\u202e")
        assert rows[at + 1 : at + 3] == ["  reward: 0.99", "  7       complete"]
    assert f"  {line}: 1.0" in rows
    assert [row for row in rows if row.startswith("reward:")] == ["reward: 0.125"]
    as_json = json.loads(trials(f"--store={path}", "--show=0", "--format=json").stdout)
    assert as_json["note"] == as_json["error"] == as_json["worker"] == evil
    # mnasdet makes no search of such a name.
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE searches SET name = ?", [evil])
    searches = trials(f"--store={path}", "--searches").stdout
    assert searches.splitlines()[1].startswith(f"{line}  ")
    for text in (table, shown, searches):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--store={}/one", "--show=7"], "no trial 7: search 'one' holds trials 0 to 6"),
        (["--store={}/one", "--mark=7", "--note=x"], "no trial 7: search 'one' holds"),
        (["--store={}/one", "--search_name=two"], "no search 'two' in "),
        (
            ["--store={}/two"],
            "--store holds several searches; set --search_name to one of mnasfpn, nas_fpn",
        ),
        (["--store={}/two", "--search_name=nasfpn"], "; one of nas_fpn, mnasfpn"),
        (
            ["--store={}/one", "--compare={}/two"],
            "--compare holds several searches; set --compare_search_name to one of mnasfpn, ",
        ),
        (["--store={}/three"], "three: cannot be used as a trial store: no such file"),
        (["--store={}"], "trials.db: cannot be used as a trial store: no such file"),
        (["--store=README.md"], "README.md: cannot be used as a trial store: file is not a"),
        (["--store={}/one", "--show=1", "--searches"], "give one of --searches, --show"),
        (["--store={}/one", "--mark=1"], "--mark and --note belong together"),
        (["--store={}/one", "--note=x"], "--mark and --note belong together"),
        (["--store={}/one", "--compare_search_name=x"], "--compare_search_name needs --compare"),
        (["--store={}/one", "--export={}/x.txt"], "x.txt: the file has to end in .csv or"),
        (["--store=mysql://u:p@h/d"], "kept in one of sqlite, postgresql, not in mysql"),
        (["--store=postgresql://u:hidden@127.0.0.1:1/d"], "Connection refused"),
    ],
)
def test_what_the_user_can_mend_is_one_line(arguments, message, folders):
    done = trials(*(argument.format(folders) for argument in arguments), status=1)
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr
    assert "hidden" not in done.stderr
    assert done.stdout == ""

"""The search command: its files, and a kill -9 in the middle."""

import json
import os
import signal
import sqlite3
import time

import pytest

from mnasdet import files
from tests.integration.commands import run, start


def flags(folder, config):
    return [f"--pipeline_config_path={config}", f"--model_dir={folder}"]


def trials(folder):
    """Returns the parts of the trials that do not depend on the clock or the process."""
    columns = (
        "number, tokens, key, state, metrics, accuracy, cost, reward, duplicate_of, error, seed"
    )
    with sqlite3.connect(folder / "trials.db") as connection:
        rows = connection.execute(f"SELECT {columns} FROM trials ORDER BY number").fetchall()
    timeless = []
    for row in rows:
        metrics = json.loads(row[4])
        metrics.pop("train_seconds", None)
        timeless.append((*row[:4], metrics, *row[5:]))
    return timeless


def finished(folder):
    if not (folder / "trials.db").exists():
        return 0
    with sqlite3.connect(folder / "trials.db") as connection:
        try:
            query = "SELECT count(*) FROM trials WHERE state = 'COMPLETE'"
            return connection.execute(query).fetchone()[0]
        except sqlite3.OperationalError:  # The table is not there yet.
            return 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_config):
    """The folder of an uninterrupted search, its config, and the command when it is done."""
    folder = tmp_path_factory.mktemp("search")
    config = folder / "tiny.config"
    config.write_text(tiny_config)
    return folder / "whole", config, run("search", *flags(folder / "whole", config))


def test_a_search_writes_all_its_files(whole):
    folder, config, done = whole
    for name in (
        "trials.db",
        "search.json",
        "pareto.json",
        "report/index.html",
        "best/detect.tflite",
        "best/export.json",
        "best/detect_nms.tflite",
        "best/export_nms.json",
        "best/benchmark.json",
        "pipeline.config",
    ):
        assert (folder / name).stat().st_size > 0, name
    for name in ("architectures", "tensorboard", "best"):
        assert list((folder / name).iterdir()), name
    lines = [line for line in done.stderr.splitlines() if line.startswith("trial ")]
    assert len(lines) == 4
    # Lines have the numbers of the store, and no end is told before the retraining.
    assert sorted(line.split()[1] for line in lines) == ["0", "1", "2", "3"]
    assert [line.split("(")[1].split(" done")[0] for line in lines] == [
        f"{number} of 4" for number in range(1, 5)
    ]
    assert not any("ETA 0s" in line for line in lines)
    assert "is retrained, exported and benchmarked" in done.stderr
    report = (folder / "report" / "index.html").read_text()
    for told in (
        "mnasfpn: mAP × latency^-0.3",
        f"--pipeline_config_path={config}",
        "validation: 1 file, 8 pictures",
        "mAP by class",
        "one fixed box per class on every picture",
    ):
        assert told in report, told
    frontier = json.loads((folder / "pareto.json").read_text())
    assert 1 <= len(frontier) <= 4
    assert all(member["measured_ms"] > 0 for member in frontier)
    assert f"report: {folder}/report/index.html" in done.stdout
    timed = json.loads((folder / "best" / "benchmark.json").read_text())
    for name, result in (("detect.tflite", timed), ("detect_nms.tflite", timed["nms"])):
        (line,) = [x for x in done.stdout.splitlines() if x.startswith(f"{folder}/best/{name}: ")]
        assert f"; {result['median_ms']:.3f} ms measured" in line
    described = json.loads((folder / "search.json").read_text())
    assert described["counts"]["trials"] == 4

    again = run("search", *flags(folder, config), status=1)
    assert "holds a search already; add --resume" in again.stderr
    other = run("search", *flags(folder, config), "--resume", "--seed=1", status=1)
    assert "search_config.seed is 0 in the folder, 1 in the config" in other.stderr


def test_killed_and_resumed_it_has_the_same_trials(whole, tmp_path):
    folder, config, _ = whole
    with open(tmp_path / "log", "w") as log:
        words = flags(tmp_path / "run", config)
        process = start("search", *words, output=log, errors=log, start_new_session=True)
        while not finished(tmp_path / "run") and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert 1 <= finished(tmp_path / "run") < 4, (tmp_path / "log").read_text()
    resumed = run("search", *flags(tmp_path / "run", config), "--resume", "--format=json")
    assert trials(tmp_path / "run") == trials(folder)
    assert "resumed: " in resumed.stderr
    # The one JSON object on standard output is what the files say.
    told, model_dir = json.loads(resumed.stdout), tmp_path / "run"
    assert told["search"] == files.read_json(model_dir / "search.json", "description")
    assert told["frontier"] == files.read_json(model_dir / "pareto.json", "frontier", of=list)
    best = told["best"]
    assert best["benchmark"] == files.read_json(model_dir / "best/benchmark.json", "timing")
    assert best["metrics"]["step"] == 10  # of retrain_config
    assert best["trial"] in range(4)
    assert told["report"] == str(model_dir / "report/index.html")

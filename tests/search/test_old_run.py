"""A run folder of version 0.1, with a trial store of schema version 3, goes on and is told of.

It was written by that version: six trials of a search over two image sizes, of which the second
failed and the third found nothing.
"""

import csv
import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from mnasdet import config
from mnasdet.architectures import from_trial
from mnasdet.errors import UserError
from mnasdet.reporting import report
from mnasdet.search import latency, results, reward
from mnasdet.search.controllers import factory as controllers
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.search import Search
from mnasdet.search.trials import trial_export
from mnasdet.search.trials.trial_store import TrialState, TrialStore
from mnasdet.search_spaces import factory as search_spaces
from tests.search import cheap_children

RUN = Path(__file__).with_name("run_of_version_0_1.tar.xz")

# By number; the second trial failed, and of the third the mAP was -1.
ACCURACIES = [0.0625, None, 0.0, 0.4375, 0.5625, 0.6875]
COSTS = [0.021731328, 0.021380832, 0.009561504, 0.021681024, 0.009660704, 0.009628576]
REWARDS = [
    0.19713065145338166, None, 0.0, 1.3808742786231256, 2.2626632237320647, 2.7682423455617493
]  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    with tarfile.open(RUN) as packed:
        packed.extractall(tmp_path / "old_run", filter="data")
    return tmp_path / "old_run"


@pytest.fixture
def pipeline(folder):
    return config.load(folder / "pipeline.config")


def opened(folder):
    return closing(TrialStore(folder / "trials.db", "old_run", create=False))


def test_its_trials_have_accuracy_and_cost(folder):
    with opened(folder) as store:
        trials = store.trials()
    assert [trial.accuracy for trial in trials] == ACCURACIES
    assert [trial.cost for trial in trials] == COSTS
    assert [trial.reward for trial in trials] == REWARDS
    assert [from_trial(trial.architecture).input.height for trial in trials] == [
        96, 96, 64, 96, 64, 64
    ]  # fmt: skip


def test_it_goes_on(folder, pipeline):
    settings = pipeline.search_config
    base = config.resolve(pipeline).architecture
    space = search_spaces.from_config(settings.search_space, base)
    with opened(folder) as store, store.claimed():
        before = store.trials()
        results.start(folder, pipeline, space, store, resume=True)
        trials = Search(
            pipeline=pipeline,
            store=store,
            space=space,
            controller=controllers.from_config(settings.controller, space, settings.seed),
            reward=reward.from_config(settings.reward),
            latency=latency.from_config(settings.latency),
            executor=ThisProcess(cheap_children.accuracy),
            max_pending=settings.max_pending_trials,
        ).run(8)
        measured_ms = results.read_measured_ms(folder)
        description = results.write(folder, trials, measured_ms)
    assert trials[:6] == before
    assert [trial.state for trial in trials[6:]] == [TrialState.COMPLETE] * 2
    assert measured_ms == {5: 4.25}
    members = results.read_frontier(folder)
    assert {"accuracy", "cost", "measured_ms"} <= members[0].keys()
    assert members[0]["cost"] == min(trial.cost for trial in trials)
    report.write(folder / "index.html", trials, search=description, space=space)
    page = (folder / "index.html").read_text()
    assert "mAP" in page
    assert "G multiply-adds" in page


def test_it_is_exported(folder):
    with opened(folder) as store:
        trial_export.write(folder / "trials.csv", store)
        trial_export.write(folder / "trials.json", store)
    with open(folder / "trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["accuracy"] for row in rows] == ["0.0625", "", "0.0", "0.4375", "0.5625", "0.6875"]
    assert [float(row["cost"]) for row in rows] == COSTS
    content = json.loads((folder / "trials.json").read_text())
    assert content["description"]["latency_unit"] == "G multiply-adds"


def test_a_row_that_was_damaged_stays_damaged(folder, caplog):
    with closing(sqlite3.connect(folder / "trials.db")) as connection, connection:
        connection.execute("UPDATE trials SET reward = 9.0 WHERE number = 3")
        connection.execute("UPDATE trials SET started = 'soon' WHERE number = 4")
    with opened(folder) as store:
        assert [trial.number for trial in store.trials()] == [0, 1, 2, 5]
        for number in (3, 4):
            with pytest.raises(UserError, match=f"trial {number} is damaged"):
                store.trial(number)

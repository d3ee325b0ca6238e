"""One process at a time works on a search."""

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from mnasdet.errors import UserError
from mnasdet.search.trials import lease
from mnasdet.search.trials.trial_schema import LEASES
from mnasdet.search.trials.trial_store import Trial, TrialState, TrialStore
from tests.search.executors.cheap_workers import ROOT, wait_for

TRIAL = Trial(0, (1, 2), "name: 'a'", "k", 0)

HOLDER = """
import sys, time
from mnasdet.search.trials.trial_store import TrialStore
with TrialStore(sys.argv[1]).claimed():
    open(sys.argv[2], "w").close()
    time.sleep(600)
"""


@pytest.fixture
def holder(location, tmp_path):
    """Another process that has claimed the search."""
    claimed = tmp_path / "claimed"
    command = [sys.executable, "-c", HOLDER, str(location), str(claimed)]
    process = subprocess.Popen(command, cwd=ROOT)
    wait_for(claimed.exists)
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_refused_until_the_first_one_ends(location, holder):
    store = TrialStore(location)
    store.add([TRIAL])  # A note, say.
    message = (
        rf"search 'search' is being run by process {holder.pid} on .*, whose last sign of life"
    )
    with pytest.raises(UserError, match=message), store.claimed():
        pass
    # Killed, it cannot give anything back.
    holder.kill()
    holder.wait()
    with store.claimed(), store.claimed():
        store.update(TRIAL, note="mine")
    store.close()


def test_of_many_that_claim_a_search_at_once_one_has_it(location):
    """As the first ones, and where there was a holder before."""
    stores = [TrialStore(location) for _ in range(8)]

    def claim(store):
        try:
            with store.claimed():
                barrier.wait()
        except UserError:
            barrier.wait()
            return False
        return True

    for _ in range(2):
        barrier = threading.Barrier(len(stores))
        with ThreadPoolExecutor(len(stores)) as pool:
            assert sorted(pool.map(claim, stores)) == [False] * 7 + [True]
    for store in stores:
        store.close()


def test_a_frozen_holder_loses_the_search_and_changes_nothing(location, monkeypatch):
    monkeypatch.setattr(lease, "_UNTIL_EXPIRED", 0.2)
    frozen, other = TrialStore(location), TrialStore(location)
    with frozen.claimed():
        frozen.add([TRIAL])
        time.sleep(0.4)
        with other.claimed():
            done = other.update(TRIAL, state=TrialState.COMPLETE, reward=1.0)
            with pytest.raises(UserError, match="'search' was taken over by another process"):
                frozen.update(TRIAL, state=TrialState.RUNNING)
            with pytest.raises(UserError, match="taken over"):
                frozen.add([dataclasses.replace(TRIAL, number=1)])
            assert other.trials() == [done]
    # The first one's end does not end the other's.
    with other.claimed():
        pass
    frozen.close()
    other.close()


def test_signs_of_life_keep_the_search(location, monkeypatch):
    monkeypatch.setattr(lease, "_UNTIL_EXPIRED", 0.5)
    monkeypatch.setattr(lease, "_BETWEEN_HEARTBEATS", 0.05)
    store, other = TrialStore(location), TrialStore(location)
    with store.claimed():
        time.sleep(1.0)
        with pytest.raises(UserError, match="is being run by process"), other.claimed():
            pass
    store.close()
    other.close()


@pytest.mark.parametrize(
    ("owner", "age", "is_free"),
    [
        ({}, 1.0, False),
        ({}, 61.0, True),
        ({}, -61.0, True),  # A clock that was wrong.
        ({"pid": 2**22 + 1}, 1.0, True),
        ({"machine": "elsewhere", "pid": 2**22 + 1}, 1.0, False),
        ({"machine": "elsewhere", "pid": 2**22 + 1}, 61.0, True),
        ({"pid": "damaged"}, 1.0, True),
    ],
)
def test_when_a_lease_is_free(tmp_path, owner, age, is_free):
    store = TrialStore(tmp_path / "trials.db")
    with store.claimed():
        pass
    held = json.dumps(lease._this_process() | owner)
    change = LEASES.update().values(owner=held, heartbeat=time.time() - age)
    store._database.write(lambda connection: connection.execute(change))
    refused = pytest.raises(UserError, match="is being run by")
    with contextlib.nullcontext() if is_free else refused, store.claimed():
        pass
    store.close()


def test_a_damaged_lease_is_free(tmp_path):
    store = TrialStore(tmp_path / "trials.db")
    with store.claimed():
        pass
    change = sa.text("UPDATE leases SET owner = x'ff00', heartbeat = 'late', token = 'many'")
    store._database.write(lambda connection: connection.execute(change))
    with store.claimed():
        store.add([TRIAL])
    store.close()


def test_a_stopped_holder_is_alive_for_a_minute(tmp_path):
    """SIGSTOP, as of a debugger or a laptop that sleeps."""
    path, claimed = tmp_path / "trials.db", tmp_path / "claimed"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), str(claimed)], cwd=ROOT)
    try:
        wait_for(claimed.exists)
        os.kill(holder.pid, signal.SIGSTOP)
        store = TrialStore(path)
        with pytest.raises(UserError, match="is being run by process"), store.claimed():
            pass
        store.close()
    finally:
        holder.kill()
        holder.wait()

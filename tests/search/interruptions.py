"""Searches of `search_runs` that are interrupted at random moments."""

import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.trials.trial_store import Trial, TrialStore
from tests.forked import Forked
from tests.search import cheap_children, search_runs

# Two interruptions have but some cheap trials between them.
_SECONDS_BETWEEN = 120

# Given the process of the search; whether it ended it.
Interruption = Callable[[Forked], bool]


def uninterrupted(controller: str, store: Path) -> list[Trial]:
    search = search_runs.search(controller, store, ThisProcess(cheap_children.accuracy))
    return timeless(search.run(search_runs.NUM_TRIALS))


def interrupted(
    controller: str, store: Path, interruptions: Sequence[Interruption], *arguments: str
) -> list[Trial]:
    """The trials of a search that was run again after every interruption that ended it."""
    rng = random.Random(0)
    trials_between = search_runs.NUM_TRIALS // (len(interruptions) + 2)
    process = _start(controller, store, *arguments)
    for interrupt in interruptions:
        goal = _num_finished(store) + rng.randint(0, trials_between)
        deadline = time.monotonic() + _SECONDS_BETWEEN
        while _num_finished(store) < goal:
            assert process.poll() is None, "the search has ended before all interruptions"
            assert time.monotonic() < deadline, "the search hangs"
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.1))
        assert process.poll() is None, "the search has ended before all interruptions"
        if interrupt(process):
            process = _start(controller, store, *arguments)
    assert process.wait(timeout=_SECONDS_BETWEEN) == 0
    return timeless(TrialStore(store).trials())


def kill_group(process: Forked) -> bool:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def timeless(trials: Sequence[Trial]) -> list[Trial]:
    """Returns the trials without the fields that differ between two runs of one search."""
    return [dataclasses.replace(t, started=None, finished=None, worker=None) for t in trials]


def _start(*arguments: str | Path) -> Forked:
    return Forked(["-m", "tests.search.search_runs", *map(str, arguments)], start_new_session=True)


def _num_finished(store: Path) -> int:
    return sum(trial.is_finished for trial in TrialStore(store).trials()) if store.exists() else 0

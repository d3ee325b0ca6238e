"""Helpers for the tests of workers, be they processes of this machine or of a Ray cluster."""

import contextlib
import time
from pathlib import Path

from mnasdet.search.child import ChildTask
from tests.search import cheap_children

ROOT = Path(__file__).parents[3]
TASK = ChildTask(b"", "architecture", 1)


def running(executor, run_child, num_workers=1, **arguments):
    """For a `with` block: an executor of that class, closed behind it."""
    return contextlib.closing(
        executor(
            num_workers, run_child=run_child, prepare=cheap_children.prepare_nothing, **arguments
        )
    )


def remembering(file):
    """The task of a child that remembers by a file what it has done."""
    return ChildTask(b"", str(file), 0)


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def process_in(file):
    """The id of the process that a child writes into a file, as soon as it is there."""
    wait_for(lambda: file.exists() and file.read_text())
    return int(file.read_text())

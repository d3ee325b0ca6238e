"""The inside of a `WarmProcess`."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import signal
import sys
import traceback
from multiprocessing.connection import Connection

from absl import flags, logging

from mnasdet import terminal
from mnasdet.search.child import ChildTask, Outcome
from mnasdet.search.executors.executor import RunChild
from mnasdet.search.executors.warm_process import Bug, Settings

# The option of Linux's prctl for the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1


def main(pipe_fileno: int) -> None:
    """Answers the settings when it is ready, then every task with an outcome or a `Bug`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the search to handle.
    _end_with_parent(pipe_fileno)
    pipe = Connection(pipe_fileno)
    settings: Settings = pipe.recv()
    terminal.set_up()
    flags.FLAGS.mark_as_parsed()  # There are none; else absl's first line here is about that.
    settings.prepare(settings.threads)
    logging.set_verbosity(logging.WARNING)
    with contextlib.suppress(EOFError, OSError):  # The search closed the pipe, or died.
        pipe.send(None)
        while True:
            pipe.send(_answer(settings.run_child, pipe.recv()))


def _answer(run_child: RunChild, task: ChildTask) -> Outcome | Bug:
    try:
        return run_child(task)
    except Exception as error:  # Shown by the search, in the process the user sees.
        trace = traceback.format_exc()
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return Bug(error, trace)


def _end_with_parent(pipe_fileno: int) -> None:
    """Sees to it that this process, and what its children start, end when the search does.

    A search that is killed cannot say so. It holds our standard input open, and the system closes
    that. A thread here could not act on it while other code holds the interpreter's lock, or while
    the process is stopped: so a second process waits for it, and kills the whole group.
    """
    # In case the whole group is stopped, the system ends this process, which wakes the other one.
    if os.fork():
        _ask_for_signal(signal.SIGKILL)
        return
    _ask_for_signal(signal.SIGCONT)
    with contextlib.suppress(BaseException):
        # Else the search would not notice when the worker dies, nor would who reads its output.
        for file in (pipe_fileno, 1, 2):
            os.close(file)
        while os.read(0, 1):
            pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _ask_for_signal(number: signal.Signals) -> None:
    """Asks for a signal when the parent ends, where the system can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)

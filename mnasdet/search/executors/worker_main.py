"""The inside of a `WarmProcess`."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import traceback
from multiprocessing.connection import Connection

from absl import flags, logging

from mnasdet import terminal
from mnasdet.search.child import ChildTask, Outcome
from mnasdet.search.executors.executor import RunChild
from mnasdet.search.executors.warm_process import Bug, Settings


def main(pipe_fileno: int) -> None:
    """Answers the settings when it is ready, then every task with an outcome or a `Bug`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the search to handle.
    threading.Thread(target=_end_with_parent, daemon=True).start()
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


def _end_with_parent() -> None:
    """A search that was killed leaves no worker behind: it held our standard input open."""
    while os.read(0, 1):
        pass
    os._exit(1)

"""Signals that ask a training to stop: it stops after the step in hand, not in its middle."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from absl import logging

from mnasdet.errors import UserError

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(UserError):
    """A signal asked the training to stop; its last step is saved."""


class StopRequest:
    """The signal that asked to stop; None up to then."""

    signal_name: str | None = None


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Takes down SIGTERM and Ctrl-C in place of obeying them; the second one is obeyed.

    A signal that is ignored stays so: Ctrl-C in a worker process is for its search to handle.
    Python delivers signals to the main thread alone; in any other, nothing changes.
    """
    request = StopRequest()

    def take_down(number: int, frame: FrameType | None) -> None:
        request.signal_name = signal.Signals(number).name
        # The first step of a large network may take a minute.
        logging.info("%s: ending after this step; once more ends at once", request.signal_name)
        # The second signal is for those who do not want to wait for the end of the step.
        restore()

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    handlers = {}
    if threading.current_thread() is threading.main_thread():
        found = {number: signal.getsignal(number) for number in _SIGNALS}
        # None is a handler that C code has set, which Python cannot put back.
        handlers = {
            number: handler
            for number, handler in found.items()
            if handler not in (signal.SIG_IGN, None)
        }
    for number in handlers:
        signal.signal(number, take_down)
    try:
        yield request
    finally:
        restore()

"""Signals that ask a training to stop: it stops after the step in hand, not in its middle."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

# The handlers that Python starts with. A worker process ignores Ctrl-C, because its search handles
# it, and has to go on doing so: only these handlers are replaced.
_DEFAULTS: dict[int, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}


class StopRequest:
    """The signal that asked to stop; None up to then."""

    signal_name: str | None = None


@contextlib.contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Takes down SIGTERM and Ctrl-C in place of obeying them; the second one is obeyed.

    Python delivers signals to the main thread alone: in any other, nothing changes.
    """
    request = StopRequest()

    def take_down(number: int, frame: FrameType | None) -> None:
        request.signal_name = signal.Signals(number).name
        restore()

    def restore() -> None:
        for number in taken:
            signal.signal(number, _DEFAULTS[number])

    taken = []
    if threading.current_thread() is threading.main_thread():
        taken = [number for number in _DEFAULTS if signal.getsignal(number) is _DEFAULTS[number]]
    for number in taken:
        signal.signal(number, take_down)
    try:
        yield request
    finally:
        restore()

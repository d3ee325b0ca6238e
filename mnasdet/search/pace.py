"""How much time trainings that run side by side will still take."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """The work done per second since every worker has done its first training.

    The first training of a worker waits for TensorFlow to load, for tables to be measured and for
    functions to be traced. To go by it would promise several times the true duration.

    Attributes:
      elapsed: seconds since the start.
    """

    def __init__(self, num_workers: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        """Takes `clock`, in seconds; the time elapsed starts now."""
        self._num_workers = num_workers
        self._clock = clock
        self._start = self._now = clock()
        self._trained = 0
        self._warm_since: float | None = None
        self._work = 0.0

    @property
    def elapsed(self) -> float:
        return self._now - self._start

    def add(self, work: float = 1.0, trained: bool = True) -> None:
        """Counts work that is done just now.

        Args:
          work: in any unit: twice the work takes twice the time.
          trained: it was a training, and not, say, a trial that was rejected at once.
        """
        self._now = self._clock()
        if self._warm_since is not None:
            self._work += work
        self._trained += trained
        if self._warm_since is None and self._trained >= self._num_workers:
            self._warm_since = self._now

    def remaining(self, work: float) -> float | None:
        """Returns the seconds that work to come takes; None as long as nobody can know."""
        if work <= 0:
            return 0.0
        if self._warm_since is None or not self._work:
            return None
        return work * (self._now - self._warm_since) / self._work

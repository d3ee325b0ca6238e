"""The interface of executors."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

from mnasdet.search.child import ChildTask, Outcome

RunChild = Callable[[ChildTask], Outcome]


class Executor(Protocol):
    """Trains children."""

    def submit(self, task: ChildTask) -> Future[Outcome]:
        """Starts the child, soon.

        The future ends in an outcome, whatever happens to the child; an exception in it is a bug
        of ours, or a UserError that stops the search.
        """
        ...

    def close(self) -> None:
        """Ends what is running, at once."""
        ...

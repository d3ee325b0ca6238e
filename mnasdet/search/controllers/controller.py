"""What proposes architectures and learns from their rewards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from mnasdet.search_spaces.space import Tokens

# A proposal and its reward, None where its trial failed.
Result: TypeAlias = tuple[Tokens, float | None]


class Controller(Protocol):
    """Deterministic: the same seed, proposals and feedback in the same order give the same again,
    so that replaying a search's history restores its controller."""

    # Proposals that one step of learning wants.
    batch_size: int

    def propose(self, n: int) -> list[Tokens]:
        """The next `n` token lists of the space, repetitions possible."""

    def feedback(self, results: Sequence[Result]) -> None:
        """Learns from finished trials."""

    def state(self) -> dict[str, Any]:
        """Arrays and numbers, by name, that `restore` goes on from and `numpy.savez` can write."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes a `state` of a controller with the same arguments."""

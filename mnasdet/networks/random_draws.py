"""Random numbers of a network in training, as functions of the examples that it sees.

TensorFlow's own random operations count their calls in a state that no checkpoint has: a training
that goes on would draw the numbers of its first steps once more.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import tensorflow as tf


class _Draws:
    """The draws of one forward pass, numbered as they come."""

    def __init__(self, seed: tf.Tensor):
        self._seed = seed
        self._count = 0

    def next_seed(self) -> tf.Tensor:
        return tf.random.experimental.stateless_fold_in(self._seed, self.next_fold())

    def next_fold(self) -> int:
        """Returns the number that makes a seed of its own for the next draw."""
        # Augmentations fold numbers from 0 on into the seed of the same example.
        self._count -= 1
        return self._count


class _State(threading.local):
    """The draws of a thread: replicas run, and are traced, in threads of their own."""

    draws: _Draws | None = None


_state = _State()


@contextlib.contextmanager
def seeded(seed: tf.Tensor | None) -> Iterator[None]:
    """Makes what this thread draws a function of a seed, shape [2], and of the draws' order.

    Without a seed the draws are TensorFlow's own.
    """
    outer = _state.draws
    _state.draws = None if seed is None else _Draws(seed)
    try:
        yield
    finally:
        _state.draws = outer


def uniform(shape: tf.Tensor | tuple) -> tf.Tensor:
    """Draws float32 numbers in [0, 1)."""
    if _state.draws is None:
        return tf.random.uniform(shape)
    return tf.random.stateless_uniform(shape, _state.draws.next_seed())


def uniform_of_each(seeds: tf.Tensor | None, shape: tuple[int, ...]) -> tf.Tensor:
    """Draws float32 numbers in [0, 1) for every example: [examples, numbers].

    What an example draws depends on its own seed alone, and not on the others of its batch or
    replica.

    Args:
      seeds: of the examples, [examples, 2]; without them the draws are those of `uniform`.
      shape: (examples, numbers).
    """
    if _state.draws is None or seeds is None:
        return uniform(shape)
    fold = _state.draws.next_fold()
    drawn = [
        tf.random.stateless_uniform(shape[1:], tf.random.experimental.stateless_fold_in(seed, fold))
        for seed in tf.unstack(seeds)
    ]
    return tf.stack(drawn)

"""Spares tracing."""

import contextlib

import tensorflow as tf


@contextlib.contextmanager
def eager():
    """Runs functions operation by operation inside.

    To trace a network of hundreds of layers takes longer than to compute it twice.
    """
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)

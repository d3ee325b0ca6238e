"""How long graphs take for pictures, on this machine and in little time.

Suppression takes longer the more there is in a picture; the random inputs of `benchmark` tell
nothing of that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from mnasdet.tflite.interpreter import load, to_pixels

_NUM_IMAGES = 10
_MIN_TURNS, _MAX_TURNS = 3, 10
# No turn begins later: an export measures unasked.
_MAX_SECONDS = 3.0


def latencies_ms(graphs: Sequence[bytes], images: np.ndarray) -> list[float]:
    """Returns the milliseconds that each graph takes for a picture, on one thread.

    The graphs take turns, and the fastest turn counts: what else the machine does meanwhile shall
    not make a difference between them.

    Args:
      graphs: TFLite files of one image each.
      images: [batch, height, width, 3] float32 in [-1, 1].
    """
    interpreters = [load(graph, 1, "TFLite graph") for graph in graphs]
    for interpreter in interpreters:
        _median_ms(interpreter, images[:1])  # the first run allocates
    turns: list[list[float]] = []
    start = time.perf_counter()
    while len(turns) < _MIN_TURNS or (
        len(turns) < _MAX_TURNS and time.perf_counter() - start < _MAX_SECONDS
    ):
        turns.append([_median_ms(x, images[:_NUM_IMAGES]) for x in interpreters])
    return [min(turns_ms) for turns_ms in zip(*turns, strict=True)]


def _median_ms(interpreter: Interpreter, images: np.ndarray) -> float:
    (taken,) = interpreter.get_input_details()
    if taken["dtype"] == np.uint8:
        images = to_pixels(images)
    runs_ms = []
    for image in images:
        interpreter.set_tensor(taken["index"], image[None])
        start = time.perf_counter()
        interpreter.invoke()
        runs_ms.append(1e3 * (time.perf_counter() - start))
    return float(np.median(runs_ms))

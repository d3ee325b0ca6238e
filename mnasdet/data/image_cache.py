"""Decides whether decoded images are kept in memory."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil
from absl import logging

from mnasdet.data.record_index import RecordIndex
from mnasdet.protos import input_reader_pb2

# Without being asked, a training takes no more than this share of the memory that is free.
FREE_SHARE = 0.25

# Limit and use of a group of processes, as containers have them: Linux's second version, and the
# first.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
    ),
)


def keeps_images(
    reader: input_reader_pb2.InputReader, index: RecordIndex, trainings_at_once: int
) -> bool:
    """Returns whether a training keeps its images decoded, and logs how much that takes.

    Where the reader says nothing it does if there is room. What is free differs between machines,
    so it must not decide the order of the images: that of several files is drawn anew in every
    epoch only where they are not kept.

    Args:
      trainings_at_once: trainings that share the memory of this machine.
    """
    megabytes = index.decoded_bytes / 1e6
    if reader.HasField("cache_decoded_images"):
        if reader.cache_decoded_images:
            logging.info("keeping decoded images in memory: %.0f MB", megabytes)
        return reader.cache_decoded_images
    if reader.shuffle and len(index.files) > 1:
        return False
    free = free_bytes()
    if index.decoded_bytes > FREE_SHARE * free / trainings_at_once:
        return False
    logging.info("keeping decoded images in memory: %.0f of %.0f MB free", megabytes, free / 1e6)
    return True


def free_bytes() -> int:
    """Returns how much memory this process may still take without swapping."""
    free = psutil.virtual_memory().available
    for limit, used in _GROUPS:
        with contextlib.suppress(OSError, ValueError):  # No such file, or "max".
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(free, 0)

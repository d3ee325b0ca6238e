"""Loads what the commands need, ahead of them."""

import os

# As scripts/command.py does.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

from mnasdet.search import search  # noqa: F401
from mnasdet.training import trainer  # noqa: F401

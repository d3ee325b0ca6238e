"""The variables in a file of weights, read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mnasdet.errors import CheckpointError


@dataclass(frozen=True)
class Source:
    """The variables in a file.

    Attributes:
      path: of the file, as the user wrote it.
      format: "a safetensors file", for messages.
      shapes: of the variables, by the names in the file.
      read: returns the value of one of them.
    """

    path: str
    format: str
    shapes: Mapping[str, Sequence[int]]
    read: Callable[[str], np.ndarray]

    def get(self, name: str) -> np.ndarray:
        """Returns a variable in float32.

        Raises:
          CheckpointError: it cannot be read, or has values that are NaN or infinite.
        """
        try:
            value = np.asarray(self.read(name), np.float32)
        # The readers' own libraries raise errors of their own, and any of Python's for bytes that
        # make no sense.
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise CheckpointError(f"{self.path}: {name} cannot be read: {reason}") from None
        if not np.isfinite(value).all():
            raise CheckpointError(f"{self.path}: {name} has values that are NaN or infinite")
        return value

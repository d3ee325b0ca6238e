"""The images that a conversion keeps out of training, as a second set of records.

A search rewards its children by images that none of them was trained on, and that are not those of
the final evaluation: 7000 of COCO's train2017 (MnasFPN, section 4.2), 7392 (NAS-FPN, section 4.2).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mnasdet.errors import DataError


@dataclass(frozen=True)
class Holdout:
    """Draws images by their file names.

    An image's lot depends on its own name and the seed alone. So the order of the annotations does
    not matter, and an image that is added later moves at most one of the others.

    Attributes:
      count: images to draw; 0 draws `fraction` of all.
      seed: another one draws other images.
    """

    count: int = 0
    fraction: float = 0.0
    seed: int = 0

    def drawn(self, names: Sequence[str]) -> frozenset[str]:
        """Returns the names that are held out, of different ones.

        Raises:
          DataError: none is held out, or none is left.
        """
        count = self.count or round(self.fraction * len(names))
        if not 0 < count < len(names):
            asked = (
                f"--holdout={self.count}" if self.count else f"--holdout_fraction={self.fraction}"
            )
            raise DataError(
                f"{asked} holds {count} images out; 1 to {len(names) - 1} are allowed, for "
                f"{len(names)} images can be written"
            )
        return frozenset(sorted(names, key=self._lot)[:count])

    def _lot(self, name: str) -> bytes:
        # Python's own hash of a text differs from run to run.
        return hashlib.sha256(f"{self.seed} {name}".encode()).digest()


def holdout_path(output_path: str | os.PathLike[str]) -> Path:
    """Returns the path of the held-out records: train_holdout.record beside train.record."""
    path = Path(output_path)
    return path.with_name(f"{path.stem}_holdout{path.suffix}")

"""The common part of readers of records, whatever the records say of their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

Example = dict[str, tf.Tensor]


def sizes(checked: Sequence[Any | None]) -> np.ndarray:
    """Returns (height, width) of all records, [records, 2] int32; 0 for those not usable."""
    both = [(record.height, record.width) if record else (0, 0) for record in checked]
    return np.array(both, np.int32).reshape(-1, 2)


class RecordFormat(Protocol):
    """The content of the records of one kind beside an image: its boxes, or its class.

    What a check found is kept by files and format, so a format is a frozen dataclass.
    """

    def __hash__(self) -> int: ...

    def check(
        self,
        example: tf.train.Example,
        label_map: Mapping[int, str],
        ids: Mapping[str, int],
        notes: Counter[str],
    ) -> tuple[Any | None, list[str]]:
        """Looks at one record, at the image's frame but not its pixels.

        Args:
          ids: class ids by the names that the texts of classes may be.
          notes: counts what was mended.

        Returns:
          A dataclass with what is good of the record, among it `source_id`, `encoded`, `height` and
          `width`; None where nothing is. And what is wrong with single parts.

        Raises:
          ValueError: what is wrong with all of it.
        """
        ...

    def contents(self, checked: Sequence[Any | None]) -> dict[str, np.ndarray]:
        """Returns what `parse` needs of all records of all files."""
        ...

    def parse(
        self, serialized: tf.Tensor, number: tf.Tensor, contents: Mapping[str, tf.Tensor]
    ) -> Example:
        """Reads a record that `check` found usable: `encoded`, `source_id`, `height`, `width`, and
        the boxes that augmentations move. Runs in Dataset.map.

        Args:
          number: counts the readable records of all files.
        """
        ...

    def batched(self, example: Example) -> Example:
        """Returns an example of which all have the same shapes. Runs in Dataset.map."""
        ...

    def warning(self, contents: Mapping[str, np.ndarray], num_images: int) -> str:
        """Returns why there is nothing to learn from so many usable records; "" where there is."""
        ...

    def digits(self, split: str, num_images: int, image_size: int) -> tuple[list[Path], Path]:
        """Returns record files and label map of the embedded digits, as `digits.records`."""
        ...

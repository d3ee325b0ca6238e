"""Records: one image with its boxes as a tf.train.Example with the OD API's feature names."""

from __future__ import annotations

import contextlib
import glob
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from mnasdet import files
from mnasdet.data import undecoded
from mnasdet.data.example_features import (
    bytes_of,
    image_of,
    numbers_of,
    of_bytes,
    of_floats,
    of_image,
    of_ints,
    text_of,
)
from mnasdet.errors import DataError

# Annotations are rounded: what reaches outside the image by less than this is cut off silently.
ROUNDING_PIXELS = 0.5

# A box with less of its area than this inside the image is somewhere else than its object.
LEAST_INSIDE = 0.25

# A box that loses more than the rest of its area is counted by itself: many of them are a mistake.
MUCH_INSIDE = 0.75
CUT_FAR = "boxes cut at the edge of their image by more than a quarter"

_BOX_KEYS = tuple(f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax"))
_CLASS_KEY = "image/object/class/label"
_TEXT_KEY = "image/object/class/text"


@dataclass(frozen=True)
class Record:
    """One image and its N boxes.

    Attributes:
      source_id: names the image in evaluations and messages.
      encoded: the JPEG or PNG file's bytes.
      height, width: of the image in pixels.
      boxes: [N, 4] float32 (ymin, xmin, ymax, xmax), normalised to [0, 1].
      class_ids: [N] int64 from 1.
      class_names: N names, or none.
      area: [N] float32 in square pixels; that of the mask where the data set has masks.
      is_crowd: [N] bool, the box stands for a group.
      difficult: [N] bool, Pascal VOC's flag.
    """

    source_id: str
    filename: str
    encoded: bytes
    image_format: str
    height: int
    width: int
    boxes: np.ndarray
    class_ids: np.ndarray
    class_names: Sequence[str]
    area: np.ndarray
    is_crowd: np.ndarray
    difficult: np.ndarray


@dataclass(frozen=True)
class Box:
    """A box within its image.

    Attributes:
      sides: (ymin, xmin, ymax, xmax) in pixels.
      kept: the share of its area that was inside the image.
    """

    sides: tuple[float, float, float, float]
    kept: float

    @property
    def area(self) -> float:
        ymin, xmin, ymax, xmax = self.sides
        return (ymax - ymin) * (xmax - xmin)


def to_example(record: Record) -> tf.train.Example:
    """Returns the record in the OD API's features."""
    ymin, xmin, ymax, xmax = record.boxes.reshape(-1, 4).T
    features = of_image(
        record.source_id,
        record.filename,
        record.encoded,
        record.image_format,
        record.height,
        record.width,
    ) | {
        "image/object/bbox/xmin": of_floats(xmin),
        "image/object/bbox/xmax": of_floats(xmax),
        "image/object/bbox/ymin": of_floats(ymin),
        "image/object/bbox/ymax": of_floats(ymax),
        "image/object/class/text": of_bytes([name.encode() for name in record.class_names]),
        "image/object/class/label": of_ints(record.class_ids),
        "image/object/is_crowd": of_ints(record.is_crowd),
        "image/object/area": of_floats(record.area),
        "image/object/difficult": of_ints(record.difficult),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def from_example(
    example: tf.train.Example,
    ids: Mapping[str, int] | None = None,
    notes: Counter[str] | None = None,
) -> Record:
    """Returns the record of an example, also of one that a converter of the OD API wrote.

    Args:
      ids: class ids by the names that the texts of classes may be. A text that is among them
        counts, whatever the label beside it says, as in the OD API; any other leaves its label,
        or 0 where there is none.
      notes: counts the boxes whose ids come from texts against their labels.

    Raises:
      ValueError: when features are missing or do not fit together, or the image is broken.
    """
    features = example.features.feature
    encoded, image_format, height, width = image_of(features)
    labels, texts = numbers_of(features, _CLASS_KEY), bytes_of(features, _TEXT_KEY)
    names = [text.decode("utf-8", "replace") for text in texts]
    counted_by = _CLASS_KEY if len(labels) or not names else _TEXT_KEY
    count = len(labels) or len(names)

    def values(key: str, needed: bool = False) -> np.ndarray:
        found = numbers_of(features, key)
        if len(found) != count and (needed or len(found)):
            raise ValueError(f"{key} has {len(found)} values but {counted_by} has {count}")
        return found if len(found) else np.zeros(count)

    if len(names) not in (0, count):
        raise ValueError(f"{_TEXT_KEY} has {len(names)} values but {counted_by} has {count}")
    boxes = np.array([values(key, needed=True) for key in _BOX_KEYS], np.float32).T
    class_ids = _whole(values(_CLASS_KEY), _CLASS_KEY)
    if names and ids:
        stated = class_ids if len(labels) else None
        class_ids = _ids_of_texts(names, stated, ids, Counter() if notes is None else notes)
    return Record(
        source_id=source_id(example),
        filename=text_of(features, "image/filename"),
        encoded=encoded,
        image_format=image_format,
        height=height,
        width=width,
        boxes=boxes,
        class_ids=class_ids,
        class_names=names,
        area=_areas(values("image/object/area"), boxes, height, width),
        is_crowd=values("image/object/is_crowd") != 0,
        difficult=values("image/object/difficult") != 0,
    )


def source_id(example: tf.train.Example) -> str:
    """Returns image/source_id, or image/filename where it is missing."""
    features = example.features.feature
    return text_of(features, "image/source_id") or text_of(features, "image/filename")


def cut(box: Sequence[float], height: float, width: float, notes: Counter[str]) -> Box:
    """Cuts a box (ymin, xmin, ymax, xmax) in pixels at the edges of its image.

    Args:
      notes: counts the boxes that lose more than a rounding error.

    Raises:
      ValueError: when the box has no size or lies mostly outside.
    """
    ymin, xmin, ymax, xmax = map(float, box)
    text = f"[ymin {ymin:g}, xmin {xmin:g}, ymax {ymax:g}, xmax {xmax:g}]"
    area = (ymax - ymin) * (xmax - xmin)
    # Written so that not-a-number fails, and what is so small that its area is 0.
    if not (ymin < ymax and xmin < xmax and area > 0 and max(map(abs, box)) < math.inf):
        raise ValueError(f"{text} has no size: min must be below max")
    sides = (max(ymin, 0.0), max(xmin, 0.0), min(ymax, float(height)), min(xmax, float(width)))
    inside = max(sides[2] - sides[0], 0.0) * max(sides[3] - sides[1], 0.0)
    kept = inside / area
    if not kept >= LEAST_INSIDE:
        raise ValueError(
            f"{text} reaches outside the image of height {height:g} and width {width:g} with "
            f"{1 - kept:.0%} of its area"
        )
    # Records hold shares of the image in 32 bits.
    top, left = np.float32(sides[0] / height), np.float32(sides[1] / width)
    bottom, right = np.float32(sides[2] / height), np.float32(sides[3] / width)
    if not (top < bottom and left < right):
        raise ValueError(f"{text} has no size: it is less than a millionth of the image's")
    if kept < MUCH_INSIDE:
        notes[CUT_FAR] += 1
    elif max(-ymin, -xmin, ymax - height, xmax - width) > ROUNDING_PIXELS:
        notes["boxes cut at the edge of their image"] += 1
    return Box(sides, kept)


def parse(
    serialized: tf.Tensor, number: tf.Tensor, contents: Mapping[str, tf.Tensor]
) -> dict[str, tf.Tensor]:
    """Reads a record that `check_records` found usable. Runs in Dataset.map.

    Only the image is read from the record: its objects are those that the check found good, so
    there are no two readers which could differ.

    Args:
      number: counts the readable records of all files.
      contents: those of the index.

    Returns:
      encoded: the image's bytes. boxes: [N, 4] float32 within [0, 1]. classes: [N] int32.
      is_crowd: [N] bool. area: [N] float32. source_id: string. height, width: int32.
    """
    features = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}
    encoded = tf.io.parse_single_example(serialized, features)["image/encoded"]
    height, width = tf.unstack(contents["size"][number])
    first, end = contents["splits"][number], contents["splits"][number + 1]
    objects = {key: contents[key][first:end] for key in ("boxes", "classes", "is_crowd", "area")}
    return {
        "encoded": encoded,
        **objects,
        "source_id": contents["source_id"][number],
        "height": height,
        "width": width,
    }


def decode(parsed: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Decodes the image of a parsed record. Runs in Dataset.map.

    Returns:
      image: [height, width, 3] uint8; the rest as it was.
    """
    image = tf.io.decode_image(parsed["encoded"], channels=3, expand_animations=False)
    return _with_image(parsed, image)


def not_yet_decoded(parsed: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Returns what `decode` does, with an image of which a part can be chosen first."""
    image = undecoded.whole(parsed["encoded"], parsed["height"], parsed["width"])
    return _with_image(parsed, image)


def _with_image(parsed: dict[str, tf.Tensor], image: undecoded.Image) -> dict[str, tf.Tensor]:
    return {"image": image} | {key: value for key, value in parsed.items() if key != "encoded"}


class ShardedWriter:
    """Writes records in turn to PATH-00000-of-0000N and so on.

    The files appear when the `with` block ends well; otherwise nothing is left behind.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        num_shards: int,
        to_example: Callable[[Any], tf.train.Example] = to_example,
    ):
        """Takes `to_example`, which makes an example of what `write` is given."""
        if num_shards < 1:
            raise DataError(f"num_shards {num_shards}: at least 1 is needed")
        self._path = Path(path)
        self._to_example = to_example
        names = [f"{self._path.name}-{i:05}-of-{num_shards:05}" for i in range(num_shards)]
        self.paths = [str(self._path.with_name(name)) for name in names]
        self._written = contextlib.ExitStack()
        self._writers: list[tf.io.TFRecordWriter] = []
        self.num_written = 0

    def __enter__(self) -> ShardedWriter:
        files.make_folder(self._path.parent)
        stale = sorted(
            str(path)
            for path in self._path.parent.glob(f"{glob.escape(self._path.name)}-?????-of-?????")
            if str(path) not in self.paths
        )
        if stale:
            raise DataError(
                f"{stale[0]}: is left from a run with another --num_shards and would be read with "
                "the new files; delete it or choose another output path"
            )
        with contextlib.ExitStack() as written:
            temporary = written.enter_context(files.replacing(self.paths))
            try:
                self._writers = [tf.io.TFRecordWriter(path) for path in temporary]
            except tf.errors.OpError as error:
                raise self._cannot_write(error) from None
            self._written = written.pop_all()
        return self

    def write(self, record: Any) -> None:
        """Appends the record to the next shard."""
        # By turns: shards differ by one record at most, and each has records of the whole set.
        writer = self._writers[self.num_written % len(self._writers)]
        try:
            writer.write(self._to_example(record).SerializeToString())
        except tf.errors.OpError as error:
            raise self._cannot_write(error) from None
        self.num_written += 1

    def __exit__(self, error_type, error, traceback) -> None:
        if error is not None:
            for writer in self._writers:
                with contextlib.suppress(tf.errors.OpError):
                    writer.close()
            self._written.__exit__(error_type, error, traceback)
            return
        try:
            with self._written:
                for writer in self._writers:
                    writer.close()
        except tf.errors.OpError as full:
            raise self._cannot_write(full) from None
        except OSError as full:
            reason = full.strerror
            raise DataError(f"{full.filename}: the records cannot be written: {reason}") from None

    def _cannot_write(self, error: tf.errors.OpError) -> DataError:
        # TensorFlow puts the temporary path before the system's own reason.
        reason = error.message.rsplit("; ", 1)[-1]
        return DataError(f"{self._path}: the records cannot be written: {reason}")


def _areas(stated: np.ndarray, boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the stated areas; those of the boxes for what is no area in pixels (values.area)."""
    usable = np.isfinite(stated) & (stated > 1)
    if usable.all():
        return stated.astype(np.float32)
    of_boxes = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) * np.float32(height * width)
    return np.where(usable, stated, of_boxes).astype(np.float32)


def _ids_of_texts(
    names: Sequence[str],
    labels: np.ndarray | None,
    ids: Mapping[str, int],
    notes: Counter[str],
) -> np.ndarray:
    """Returns the ids that the texts mean, or the labels where a text names no class."""
    if labels is None:
        notes["boxes with a class/text and no class/label"] += len(names)
        return np.array([ids.get(name, 0) for name in names], np.int64)
    for name, label in zip(names, labels.tolist(), strict=True):
        if name and name not in ids:
            notes["boxes whose class/text is not in the label map; their class/label counts"] += 1
        elif name and ids[name] != label:
            notes["boxes whose class/text and class/label differ; the text counts"] += 1
    both = zip(names, labels.tolist(), strict=True)
    return np.array([ids.get(name, label) for name, label in both], np.int64)


def _whole(values: np.ndarray, key: str) -> np.ndarray:
    if not (values == np.floor(values)).all():
        raise ValueError(f"{key} has {values[0]:g}, expected whole numbers")
    return values.astype(np.int64)

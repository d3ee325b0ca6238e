"""Records: one image with its boxes as a tf.train.Example with the OD API's feature names."""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from PIL import Image
from tqdm import tqdm

from mnasdet.data.label_map import ids_of
from mnasdet.errors import DataError

IMAGE_FORMATS = ("jpeg", "png")

# Annotations are rounded: what reaches outside the image by less than this is cut off silently.
ROUNDING_PIXELS = 0.5

_BOX_KEYS = tuple(f"image/object/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax"))
_CLASS_KEY = "image/object/class/label"

# In a JPEG's scan 0xFF is followed by a stuffed zero, a restart marker or fill, between the scans
# of a progressive one by another segment. TensorFlow's decoder gives up at anything else.
_JPEG_STRAY_MARKER = re.compile(rb"\xff[\x01-\xc3\xc5-\xcf\xd8\xde\xdf\xf0-\xfd]")
# 10 microseconds a record, where a TFRecordDataset in eager mode takes up to a millisecond.
# Unwrapped, it does not print that it is deprecated.
_iterate = inspect.unwrap(tf.compat.v1.io.tf_record_iterator)

_PNG_END = b"IEND\xaeB`\x82"


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
class RecordIndex:
    """What `check_records` found.

    Attributes:
      files: the record files.
      usable: for every file [readable records] bool.
      problems: one line for every bad record, or the unreadable rest of a file.
      decoded_bytes: of all usable images as uint8 pixels.
    """

    files: tuple[str, ...]
    usable: tuple[np.ndarray, ...]
    problems: tuple[str, ...]
    decoded_bytes: int

    @property
    def num_usable(self) -> int:
        return sum(int(mask.sum()) for mask in self.usable)


def to_example(record: Record) -> tf.train.Example:
    """The record in the OD API's features."""
    ymin, xmin, ymax, xmax = record.boxes.reshape(-1, 4).T
    features = {
        "image/encoded": _bytes([record.encoded]),
        "image/format": _bytes([record.image_format.encode()]),
        "image/height": _ints([record.height]),
        "image/width": _ints([record.width]),
        "image/filename": _bytes([record.filename.encode()]),
        "image/source_id": _bytes([record.source_id.encode()]),
        "image/key/sha256": _bytes([hashlib.sha256(record.encoded).hexdigest().encode()]),
        "image/object/bbox/xmin": _floats(xmin),
        "image/object/bbox/xmax": _floats(xmax),
        "image/object/bbox/ymin": _floats(ymin),
        "image/object/bbox/ymax": _floats(ymax),
        "image/object/class/text": _bytes([name.encode() for name in record.class_names]),
        "image/object/class/label": _ints(record.class_ids),
        "image/object/is_crowd": _ints(record.is_crowd),
        "image/object/area": _floats(record.area),
        "image/object/difficult": _ints(record.difficult),
    }
    return tf.train.Example(features=tf.train.Features(feature=features))


def from_example(example: tf.train.Example) -> Record:
    """The record of an example, also of one that a converter of the OD API wrote.

    Raises:
      ValueError: when features are missing or do not fit together, or the image is broken.
    """
    features = example.features.feature
    encoded = features["image/encoded"].bytes_list.value
    if not encoded or not encoded[0]:
        raise ValueError("image/encoded is missing")
    image_format, height, width = image_header(encoded[0])
    for key, actual in (("image/height", height), ("image/width", width)):
        stated = features[key].int64_list.value
        if stated and stated[0] != actual:
            raise ValueError(f"{key} is {stated[0]} but the image has {actual}")
    class_ids = np.array(features[_CLASS_KEY].int64_list.value, np.int64)
    sides = [_values(features[key].float_list.value, key, len(class_ids)) for key in _BOX_KEYS]
    boxes = np.array(sides, np.float32).T

    def optional(key: str) -> np.ndarray:
        key = f"image/object/{key}"
        value = features[key].int64_list.value or [0] * len(class_ids)
        return np.array(_values(value, key, len(class_ids)), bool)

    area = features["image/object/area"].float_list.value
    if area:
        areas = np.array(_values(area, "image/object/area", len(class_ids)), np.float32)
    else:
        areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1) * np.float32(height * width)
    names = features["image/object/class/text"].bytes_list.value
    return Record(
        source_id=source_id(example),
        filename=_text(features["image/filename"]),
        encoded=encoded[0],
        image_format=image_format,
        height=height,
        width=width,
        boxes=boxes,
        class_ids=class_ids,
        class_names=[name.decode("utf-8", "replace") for name in names],
        area=areas,
        is_crowd=optional("is_crowd"),
        difficult=optional("difficult"),
    )


def source_id(example: tf.train.Example) -> str:
    """image/source_id, or image/filename where there is none."""
    features = example.features.feature
    return _text(features["image/source_id"]) or _text(features["image/filename"])


def image_header(encoded: bytes) -> tuple[str, int, int]:
    """Format ("jpeg" or "png"), height and width of an encoded image, without decoding its pixels.

    Raises:
      ValueError: when it is no JPEG or PNG, or not whole.
    """
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            # MPO is a JPEG with more pictures behind it, as telephones write it.
            image_format = (image.format or "").lower().replace("mpo", "jpeg")
            width, height = image.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise ValueError("the image is damaged or no image at all") from None
    if image_format not in IMAGE_FORMATS:
        raise ValueError(f"the image is {image_format.upper()}; JPEG and PNG can be read")
    # A thumbnail has an end mark of its own: that of the image follows the last scan's start.
    scan = encoded.rfind(b"\xff\xda") if image_format == "jpeg" else 0
    end = encoded.rfind(b"\xff\xd9" if image_format == "jpeg" else _PNG_END)
    if end < scan:
        raise ValueError(f"the {image_format.upper()} is cut short")
    if image_format == "jpeg" and _JPEG_STRAY_MARKER.search(encoded, scan + 2, end):
        raise ValueError("the JPEG's pixels are damaged")
    return image_format, height, width


def box_fault(box: Sequence[float], height: float, width: float) -> str:
    """What is wrong with a box (ymin, xmin, ymax, xmax) in pixels; empty when nothing is."""
    ymin, xmin, ymax, xmax = box
    text = f"[ymin {ymin:g}, xmin {xmin:g}, ymax {ymax:g}, xmax {xmax:g}]"
    low, high = -ROUNDING_PIXELS, ROUNDING_PIXELS
    if ymin < low or xmin < low or ymax > height + high or xmax > width + high:
        return f"{text} reaches outside the image of height {height:g} and width {width:g}"
    # Written so that not-a-number fails.
    if not (max(ymin, 0.0) < min(ymax, height) and max(xmin, 0.0) < min(xmax, width)):
        return f"{text} has no size: min must be below max"
    return ""


def record_fault(record: Record, label_map: Mapping[int, str], max_number_of_boxes: int) -> str:
    """What is wrong with the boxes and classes of a record; empty when nothing is."""
    if len(record.boxes) > max_number_of_boxes:
        return (
            f"{len(record.boxes)} boxes, more than max_number_of_boxes: {max_number_of_boxes}; "
            "raise it in the input reader"
        )
    scale = (record.height, record.width, record.height, record.width)
    ids = ids_of(label_map)
    for position, box in enumerate((record.boxes * scale).tolist(), start=1):
        if fault := box_fault(box, record.height, record.width):
            return f"box {position} {fault}"
    for position, class_id in enumerate(record.class_ids.tolist(), start=1):
        if class_id not in label_map:
            return f"box {position}: class id {class_id} is not in the label map"
    # Names may differ from the label map's (a display name), but not be those of another class.
    for name, class_id in zip(record.class_names, record.class_ids.tolist(), strict=False):
        if ids.get(name, class_id) != class_id:
            return f"class {name!r} has id {class_id} here, {ids[name]} in the label map"
    return ""


def check_records(
    files: Sequence[str],
    label_map: Mapping[int, str],
    max_number_of_boxes: int,
) -> RecordIndex:
    """Looks once at every record, at its boxes, classes and the image's frame but not its pixels.

    A file is read up to its first unreadable record.
    """
    usable, problems, decoded_bytes = [], [], 0
    for file in tqdm(files, desc="checking records", unit="file", delay=2, disable=None):
        mask: list[bool] = []
        try:
            for serialized in _iterate(file):
                try:
                    record = _checked(serialized, label_map, max_number_of_boxes)
                    decoded_bytes += record.height * record.width * 3
                    mask.append(True)
                except ValueError as error:
                    problems.append(f"{file}: record {len(mask)}{error}")
                    mask.append(False)
        except tf.errors.OpError as error:
            problems.append(f"{file}: record {len(mask)}: {_read_fault(error, len(mask))}")
        usable.append(np.array(mask, bool))
    return RecordIndex(tuple(files), tuple(usable), tuple(problems), decoded_bytes)


def parse(serialized: tf.Tensor) -> dict[str, tf.Tensor]:
    """Reads a record that `check_records` found good. Runs in Dataset.map.

    Returns:
      encoded: the image's bytes. boxes: [N, 4] float32 within [0, 1]. classes: [N] int32.
      is_crowd: [N] bool. area: [N] float32, below 0 where the record has none. source_id: string.
    """
    sparse_float, sparse_int = tf.io.VarLenFeature(tf.float32), tf.io.VarLenFeature(tf.int64)
    features = tf.io.parse_single_example(
        serialized,
        {
            "image/encoded": tf.io.FixedLenFeature([], tf.string),
            "image/source_id": tf.io.FixedLenFeature([], tf.string, ""),
            "image/filename": tf.io.FixedLenFeature([], tf.string, ""),
            _CLASS_KEY: sparse_int,
            "image/object/is_crowd": sparse_int,
            "image/object/area": sparse_float,
            **dict.fromkeys(_BOX_KEYS, sparse_float),
        },
    )
    classes = tf.cast(features[_CLASS_KEY].values, tf.int32)
    name = features["image/source_id"]
    return {
        "encoded": features["image/encoded"],
        "boxes": tf.clip_by_value(tf.stack([features[key].values for key in _BOX_KEYS], 1), 0, 1),
        "classes": classes,
        "is_crowd": _or_else(features["image/object/is_crowd"].values, classes, 0) != 0,
        "area": _or_else(features["image/object/area"].values, classes, -1.0),
        "source_id": tf.where(name == "", features["image/filename"], name),
    }


def decode(parsed: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Decodes the image of a parsed record. Runs in Dataset.map.

    Returns:
      image: [height, width, 3] uint8, with `height` and `width` int32; the rest as it was, areas
      filled in.
    """
    image = tf.io.decode_image(parsed["encoded"], channels=3, expand_animations=False)
    height, width = tf.unstack(tf.shape(image)[:2])
    boxes = parsed["boxes"]
    sides = boxes[:, 2:] - boxes[:, :2]
    box_area = sides[:, 0] * sides[:, 1] * tf.cast(height * width, tf.float32)
    return {
        "image": image,
        "boxes": boxes,
        "classes": parsed["classes"],
        "is_crowd": parsed["is_crowd"],
        "area": tf.where(parsed["area"] < 0, box_area, parsed["area"]),
        "source_id": parsed["source_id"],
        "height": height,
        "width": width,
    }


class ShardedWriter:
    """Writes records in turn to PATH-00000-of-0000N and so on.

    The files appear when the `with` block ends well; otherwise nothing is left behind.
    """

    def __init__(self, path: str | os.PathLike[str], num_shards: int):
        if num_shards < 1:
            raise DataError(f"num_shards {num_shards}: at least 1 is needed")
        self._path = Path(path)
        names = [f"{self._path.name}-{i:05}-of-{num_shards:05}" for i in range(num_shards)]
        self.paths = [str(self._path.with_name(name)) for name in names]
        self._temporary = [
            str(self._path.with_name(f".{name}.{uuid.uuid4().hex}.tmp")) for name in names
        ]
        self._writers: list[tf.io.TFRecordWriter] = []
        self.num_written = 0

    def __enter__(self) -> ShardedWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        stale = sorted(
            str(path)
            for path in self._path.parent.glob(f"{self._path.name}-?????-of-?????")
            if str(path) not in self.paths
        )
        if stale:
            raise DataError(
                f"{stale[0]}: is left from a run with another --num_shards and would be read with "
                "the new files; delete it or choose another output path"
            )
        try:
            self._writers = [tf.io.TFRecordWriter(path) for path in self._temporary]
        except tf.errors.OpError as error:
            self._remove_temporary()
            raise self._cannot_write(error) from None
        return self

    def write(self, record: Record) -> None:
        """Appends the record to the next shard."""
        writer = self._writers[self.num_written % len(self._writers)]
        try:
            writer.write(to_example(record).SerializeToString())
        except tf.errors.OpError as error:
            raise self._cannot_write(error) from None
        self.num_written += 1

    def __exit__(self, error_type, error, traceback) -> None:
        try:
            for writer in self._writers:
                writer.close()
            if error_type is None:
                for temporary, path in zip(self._temporary, self.paths, strict=True):
                    os.replace(temporary, path)
        except tf.errors.OpError as close_error:
            if error_type is None:
                raise self._cannot_write(close_error) from None
        finally:
            self._remove_temporary()

    def _remove_temporary(self) -> None:
        for temporary in self._temporary:
            Path(temporary).unlink(missing_ok=True)

    def _cannot_write(self, error: tf.errors.OpError) -> DataError:
        reason = error.message.rsplit("; ", 1)[-1]
        return DataError(f"{self._path}: the records cannot be written: {reason}")


def _checked(serialized: bytes, label_map: Mapping[int, str], max_number_of_boxes: int) -> Record:
    """The record; ValueError says which image it is and what is wrong with it."""
    try:
        example = tf.train.Example.FromString(serialized)
    except DecodeError:
        raise ValueError(": is no tf.train.Example") from None
    try:
        record = from_example(example)
        if fault := record_fault(record, label_map, max_number_of_boxes):
            raise ValueError(fault)
    except ValueError as error:
        raise ValueError(f" (image {source_id(example)!r}): {error}") from None
    return record


def _read_fault(error: tf.errors.OpError, num_read: int) -> str:
    if not isinstance(error, tf.errors.DataLossError):
        return error.message
    if num_read == 0:
        return "the file is damaged, cut short or no TFRecord file"
    return "the file is damaged or cut short; nothing from here on can be read"


def _values(values: Sequence, key: str, count: int) -> Sequence:
    if len(values) != count:
        raise ValueError(f"{key} has {len(values)} values but {_CLASS_KEY} has {count}")
    return values


def _or_else(values: tf.Tensor, like: tf.Tensor, default: float) -> tf.Tensor:
    """The values, or as many defaults as `like` has elements where a record has none."""
    defaults = tf.fill(tf.shape(like), tf.cast(default, values.dtype))
    return tf.concat([values, defaults], 0)[: tf.size(like)]


def _text(feature: tf.train.Feature) -> str:
    value = feature.bytes_list.value
    return value[0].decode("utf-8", "replace") if value else ""


def _bytes(values) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def _ints(values) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=map(int, values)))


def _floats(values) -> tf.train.Feature:
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))

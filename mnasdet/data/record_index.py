"""Looks once at all records: which are usable, and what training and evaluation get of them."""

from __future__ import annotations

import inspect
import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tqdm import tqdm

from mnasdet.data import records
from mnasdet.data.label_map import ids_of
from mnasdet.errors import shown

# Around a record: its length in eight bytes and their checksum; the checksum of its bytes.
_HEADER_BYTES = 12
_FOOTER_BYTES = 4

# Normalised coordinates above this are taken for pixels.
_LARGEST_SHARE = 2.0

# 10 microseconds a record, where a TFRecordDataset in eager mode takes up to a millisecond.
# Unwrapped, it does not print that it is deprecated.
_iterate = inspect.unwrap(tf.compat.v1.io.tf_record_iterator)


@dataclass(frozen=True)
class RecordIndex:
    """The result of `check_records`.

    Attributes:
      files: the record files.
      usable: for every file [readable records] bool.
      problems: one line for every bad box, bad record, or the unreadable rest of a file.
      notes: says how often the values of boxes were mended.
      decoded_bytes: of all usable images as uint8 pixels.
      contents: what `parse` gives for all readable records of all files. `splits` [records + 1]
        int64 says where the objects of each begin in `boxes`, `classes`, `is_crowd` and `area`.
    """

    files: tuple[str, ...]
    usable: tuple[np.ndarray, ...]
    problems: tuple[str, ...]
    notes: Counter[str]
    decoded_bytes: int
    contents: Mapping[str, np.ndarray]

    @property
    def num_usable(self) -> int:
        return sum(int(mask.sum()) for mask in self.usable)

    @property
    def num_objects(self) -> int:
        """Objects of all usable records, crowds among them."""
        return len(self.contents["classes"])

    @property
    def num_crowds(self) -> int:
        return int(self.contents["is_crowd"].sum())


def check_records(
    files: Sequence[str],
    label_map: Mapping[int, str],
    max_number_of_boxes: int,
    ids: Mapping[str, int] | None = None,
) -> RecordIndex:
    """Looks once at every record, at its boxes, classes and the image's frame but not its pixels.

    A file is read up to its first unreadable record. A bad box is lost alone; a record that loses
    all its boxes is not usable, as its objects would be background.

    Args:
      ids: class ids by the names that the texts of classes may be; those of the label map without.
    """
    ids = ids_of(label_map) if ids is None else ids
    usable, problems, checked = [], [], list[records.Record | None]()
    notes = Counter[str]()
    for file in tqdm(files, desc="checking records", unit="file", delay=2, disable=None):
        first = len(checked)
        num_whole = num_whole_records(file)
        try:
            for serialized in itertools.islice(_iterate(file), num_whole):
                where = f"{file}: record {len(checked) - first}"
                try:
                    record, faults = _checked(
                        serialized, label_map, max_number_of_boxes, ids, notes
                    )
                except ValueError as error:
                    record, faults = None, [str(error)]
                # Without the encoded image: all records of a data set are kept at once.
                checked.append(replace(record, encoded=b"") if record else None)
                problems += [where + fault for fault in faults]
        except tf.errors.OpError as error:
            read = len(checked) - first
            problems.append(f"{file}: record {read}: {_read_fault(file, error, read)}")
        else:
            if num_whole is not None:
                problems.append(f"{file}: record {num_whole}: {_damage(file, num_whole)}")
        usable.append(np.array([record is not None for record in checked[first:]], bool))
    decoded_bytes = sum(record.height * record.width * 3 for record in checked if record)
    contents = _contents(checked)
    return RecordIndex(tuple(files), tuple(usable), tuple(problems), notes, decoded_bytes, contents)


def _checked(
    serialized: bytes,
    label_map: Mapping[int, str],
    max_number_of_boxes: int,
    ids: Mapping[str, int],
    notes: Counter[str],
) -> tuple[records.Record | None, list[str]]:
    """Returns the record with its good boxes, and the faults of the others.

    ValueError says which image it is and what is wrong with all of it.
    """
    try:
        example = tf.train.Example.FromString(serialized)
    except DecodeError:
        raise ValueError(": is no tf.train.Example") from None
    where = f" (image {shown(records.source_id(example))!r}): "
    try:
        record = records.from_example(example, ids, notes)
        _check_boxes(record, max_number_of_boxes)
    except ValueError as error:
        raise ValueError(where + str(error)) from None
    if _is_good(record, label_map):
        return record, []
    good, boxes, faults = [], list[records.Box](), []
    scale = (record.height, record.width) * 2
    for position, box in enumerate((record.boxes.astype(np.float64) * scale).tolist()):
        if fault := _class_fault(record, position, label_map):
            faults.append(f"{where}box {position + 1}: {fault}")
            continue
        try:
            boxes.append(records.cut(box, record.height, record.width, notes))
            good.append(position)
        except ValueError as error:
            faults.append(f"{where}box {position + 1} {error}")
    # Its objects would be learnt as background.
    if faults and not good:
        return None, faults
    return _with_boxes(record, good, boxes), faults


def _check_boxes(record: records.Record, max_number_of_boxes: int) -> None:
    if len(record.boxes) > max_number_of_boxes:
        raise ValueError(
            f"{len(record.boxes)} boxes, more than max_number_of_boxes: {max_number_of_boxes}; "
            "raise it in the input reader"
        )
    # Where most boxes are so: a single one may be wrong for another reason.
    outside = record.boxes.max(axis=1, initial=0) > _LARGEST_SHARE
    if 2 * outside.sum() > len(outside):
        raise ValueError(
            f"its boxes are pixel coordinates (xmax {record.boxes[0, 3]:g}); divide them by the "
            "image's height and width when the records are written"
        )


def _is_good(record: records.Record, label_map: Mapping[int, str]) -> bool:
    """Returns whether no box needs a closer look, which takes longer than all else in the check."""
    boxes = record.boxes
    return (
        all(class_id in label_map for class_id in record.class_ids.tolist())
        and bool((boxes[:, :2] < boxes[:, 2:]).all())
        and bool(((boxes >= 0) & (boxes <= 1)).all())
    )


def _class_fault(record: records.Record, position: int, label_map: Mapping[int, str]) -> str:
    class_id = int(record.class_ids[position])
    if class_id in label_map:
        return ""
    name = record.class_names[position] if record.class_names else ""
    met = f"class {shown(name)!r} with id {class_id}" if name else f"class id {class_id}"
    return f"{met} is not in the label map"


def _with_boxes(
    record: records.Record, good: list[int], boxes: list[records.Box]
) -> records.Record:
    sides = np.array([box.sides for box in boxes], np.float64).reshape(-1, 4)
    kept = np.array([box.kept for box in boxes])
    shares = np.clip(sides / ((record.height, record.width) * 2), 0.0, 1.0)
    return replace(
        record,
        boxes=shares.astype(np.float32),
        class_ids=record.class_ids[good],
        area=(record.area[good] * kept).astype(np.float32),
        is_crowd=record.is_crowd[good],
        difficult=record.difficult[good],
        class_names=[record.class_names[i] for i in good] if record.class_names else [],
    )


def _contents(checked: Sequence[records.Record | None]) -> dict[str, np.ndarray]:
    """Joins the objects of all records, one after another; none for those that are not usable."""
    used = [record for record in checked if record]
    counts = [len(record.boxes) if record else 0 for record in checked]

    def joined(name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        parts = [getattr(record, name) for record in used]
        return np.concatenate([np.zeros(shape), *parts]).astype(dtype)

    return {
        "splits": np.cumsum([0, *counts]),
        "boxes": joined("boxes", (0, 4), np.float32),
        "classes": joined("class_ids", (0,), np.int32),
        "is_crowd": joined("is_crowd", (0,), np.bool_),
        "area": joined("area", (0,), np.float32),
        "source_id": np.array(
            [record.source_id.encode() if record else b"" for record in checked], object
        ),
    }


def num_whole_records(file: str, most: int | None = None) -> int | None:
    """Returns how many records come before one that is longer than the rest of the file.

    TensorFlow takes memory for the length that a record declares, and dies where there is not so
    much.

    Args:
      most: records that are looked at.

    Returns:
      None where there is no such record, or the file cannot be opened here: it is on another file
      system, or TensorFlow says why.
    """
    if not (os.path.isfile(file) and os.access(file, os.R_OK)):
        return None
    size, position = os.path.getsize(file), 0
    # Without a buffer: only the header of a record is looked at.
    with open(file, "rb", buffering=0) as opened:
        for number in itertools.islice(itertools.count(), most):
            header = opened.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES:
                return None
            length = int.from_bytes(header[:8], "little")
            position += _HEADER_BYTES + length + _FOOTER_BYTES
            if position > size:
                return number
            opened.seek(position)
    return None


def _read_fault(file: str, error: tf.errors.OpError, num_read: int) -> str:
    if not isinstance(error, tf.errors.DataLossError):
        return error.message
    return _damage(file, num_read)


def _damage(file: str, num_read: int) -> str:
    """Says why nothing is read of a file after its first records."""
    if num_read:
        return "the file is damaged or cut short; nothing from here on can be read"
    with tf.io.gfile.GFile(file, "rb") as opened:
        start = opened.read(2)
    if start == b"\x1f\x8b":
        return "the file is compressed with GZIP; unpack it: gunzip -c FILE > OTHER"
    if start[:1] == b"\x78" and int.from_bytes(start, "big") % 31 == 0:
        return "the file is compressed with ZLIB; write it without compression_type"
    return "the file is damaged, cut short or no TFRecord file"

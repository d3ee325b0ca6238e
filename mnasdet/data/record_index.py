"""Looks once at all records: which are usable, and what training and evaluation get of them."""

from __future__ import annotations

import inspect
import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tqdm import tqdm

from mnasdet.data import records
from mnasdet.data.label_map import ids_of
from mnasdet.data.record_format import RecordFormat
from mnasdet.errors import shown

# Around a record: its length in eight bytes and their checksum; the checksum of its bytes.
_HEADER_BYTES = 12
_FOOTER_BYTES = 4

# 10 microseconds a record, where a TFRecordDataset in eager mode takes up to a millisecond.
# Unwrapped, it does not print that it is deprecated.
_iterate = inspect.unwrap(tf.compat.v1.io.tf_record_iterator)


@dataclass(frozen=True)
class RecordIndex:
    """The result of `check_records`.

    Attributes:
      files: the record files.
      usable: for every file [readable records] bool.
      problems: one line for every bad part of a record, bad record, or the unreadable rest of a
        file.
      notes: says how often values were mended.
      decoded_bytes: of all usable images as uint8 pixels.
      contents: what the format's `parse` needs of all readable records of all files.
      is_final: whether the same files have the same index next time; not so where one could not be
        read for another reason than its content.
    """

    files: tuple[str, ...]
    usable: tuple[np.ndarray, ...]
    problems: tuple[str, ...]
    notes: Counter[str]
    decoded_bytes: int
    contents: Mapping[str, np.ndarray]
    is_final: bool = True

    @property
    def num_usable(self) -> int:
        return sum(int(mask.sum()) for mask in self.usable)


def check_records(
    files: Sequence[str],
    label_map: Mapping[int, str],
    record_format: RecordFormat,
    ids: Mapping[str, int] | None = None,
) -> RecordIndex:
    """Looks once at every record, as its format does. A file is read up to its first unreadable
    record.

    Args:
      ids: class ids by the names that the texts of classes may be; those of the label map without.
    """
    ids = ids_of(label_map) if ids is None else ids
    usable, problems, checked = [], [], list[Any]()
    notes, is_final = Counter[str](), True
    for file in tqdm(files, desc="checking records", unit="file", delay=2, disable=None):
        first = len(checked)
        num_whole = num_whole_records(file)
        try:
            for serialized in itertools.islice(_iterate(file), num_whole):
                where = f"{file}: record {len(checked) - first}"
                try:
                    record, faults = _checked(serialized, record_format, label_map, ids, notes)
                except ValueError as error:
                    record, faults = None, [str(error)]
                # Without the encoded image: all records of a data set are kept at once.
                checked.append(replace(record, encoded=b"") if record else None)
                problems += [where + fault for fault in faults]
        except tf.errors.OpError as error:
            read = len(checked) - first
            is_final &= isinstance(error, tf.errors.DataLossError)
            problems.append(f"{file}: record {read}: {_read_fault(file, error, read)}")
        else:
            if num_whole is not None:
                problems.append(f"{file}: record {num_whole}: {_damage(file, num_whole)}")
        usable.append(np.array([record is not None for record in checked[first:]], bool))
    decoded_bytes = sum(record.height * record.width * 3 for record in checked if record)
    contents = record_format.contents(checked)
    return RecordIndex(
        tuple(files), tuple(usable), tuple(problems), notes, decoded_bytes, contents, is_final
    )


def _checked(
    serialized: bytes,
    record_format: RecordFormat,
    label_map: Mapping[int, str],
    ids: Mapping[str, int],
    notes: Counter[str],
) -> tuple[Any | None, list[str]]:
    """Returns the good part of a record, and the faults of the rest.

    ValueError says which image it is and what is wrong with all of it.
    """
    try:
        example = tf.train.Example.FromString(serialized)
    except DecodeError:
        raise ValueError(": is no tf.train.Example") from None
    where = f" (image {shown(records.source_id(example))!r}): "
    try:
        record, faults = record_format.check(example, label_map, ids, notes)
    except ValueError as error:
        raise ValueError(where + str(error)) from None
    return record, [where + fault for fault in faults]


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

"""Records of images with boxes, for detectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from mnasdet.data import digits, records
from mnasdet.data.record_format import Example, sizes
from mnasdet.errors import shown
from mnasdet.protos import input_reader_pb2

# Normalised coordinates above this are taken for pixels.
_LARGEST_SHARE = 2.0


@dataclass(frozen=True)
class BoxRecords:
    """A RecordFormat: `records.Record`, with at most so many boxes an image."""

    max_number_of_boxes: int

    @classmethod
    def from_reader(cls, reader: input_reader_pb2.InputReader) -> BoxRecords:
        return cls(reader.max_number_of_boxes)

    def check(
        self,
        example: tf.train.Example,
        label_map: Mapping[int, str],
        ids: Mapping[str, int],
        notes: Counter[str],
    ) -> tuple[records.Record | None, list[str]]:
        """Returns the record with its good boxes. A bad box is lost alone; a record that loses all
        its boxes is not usable, as its objects would be background."""
        record = records.from_example(example, ids, notes)
        _check_boxes(record, self.max_number_of_boxes)
        if _is_good(record, label_map):
            return record, []
        good, boxes, faults = [], list[records.Box](), []
        scale = (record.height, record.width) * 2
        for position, box in enumerate((record.boxes.astype(np.float64) * scale).tolist()):
            if fault := _class_fault(record, position, label_map):
                faults.append(f"box {position + 1}: {fault}")
                continue
            try:
                boxes.append(records.cut(box, record.height, record.width, notes))
                good.append(position)
            except ValueError as error:
                faults.append(f"box {position + 1} {error}")
        # Its objects would be learnt as background.
        if faults and not good:
            return None, faults
        return _with_boxes(record, good, boxes), faults

    def contents(self, checked: Sequence[records.Record | None]) -> dict[str, np.ndarray]:
        """Returns the objects of all records, one after another; none for those that are not
        usable. `splits` [records + 1] int64 says where those of each begin in `boxes`, `classes`,
        `is_crowd` and `area`; `size` is that of each image."""
        used = [record for record in checked if record]
        counts = [len(record.boxes) if record else 0 for record in checked]

        def joined(name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
            parts = [getattr(record, name) for record in used]
            return np.concatenate([np.zeros(shape), *parts]).astype(dtype)

        return {
            "splits": np.cumsum([0, *counts]),
            "size": sizes(checked),
            "boxes": joined("boxes", (0, 4), np.float32),
            "classes": joined("class_ids", (0,), np.int32),
            "is_crowd": joined("is_crowd", (0,), np.bool_),
            "area": joined("area", (0,), np.float32),
            "source_id": np.array(
                [record.source_id.encode() if record else b"" for record in checked], object
            ),
        }

    def parse(
        self, serialized: tf.Tensor, number: tf.Tensor, contents: Mapping[str, tf.Tensor]
    ) -> Example:
        """Returns `records.parse`."""
        return records.parse(serialized, number, contents)

    def batched(self, example: Example) -> Example:
        """Pads the boxes by zeros to `max_number_of_boxes`, and adds `num_boxes` int32."""
        num_boxes = tf.shape(example["boxes"])[0]
        missing = self.max_number_of_boxes - num_boxes
        padded = {}
        for key in ("boxes", "classes", "is_crowd", "area"):
            value = example[key]
            rest = value.shape[1:]
            # Batches need one shape; `num_boxes` says which rows count.
            value = tf.pad(value, [[0, missing]] + [[0, 0]] * len(rest))
            padded[key] = tf.ensure_shape(value, [self.max_number_of_boxes, *rest])
        return {**example, **padded, "num_boxes": num_boxes}

    def warning(self, contents: Mapping[str, np.ndarray], num_images: int) -> str:
        num_crowds = int(contents["is_crowd"].sum())
        if len(contents["classes"]) > num_crowds:
            return ""
        return (
            f"no record has an object that is not a crowd ({num_images} images, {num_crowds} "
            "crowds): training learns nothing from them, and their mAP is -1; are these the right "
            "records?"
        )

    def digits(self, split: str, num_images: int, image_size: int) -> tuple[list[Path], Path]:
        """Returns pictures of one to five digits."""
        return digits.records(split, num_images, image_size)


def _check_boxes(record: records.Record, max_number_of_boxes: int) -> None:
    if len(record.boxes) > max_number_of_boxes:
        raise ValueError(
            f"{len(record.boxes)} boxes, more than max_number_of_boxes: {max_number_of_boxes}; "
            "raise it in the input reader"
        )
    # More than half of the boxes: a single one may be wrong for another reason.
    outside = record.boxes.max(axis=1, initial=0) > _LARGEST_SHARE
    if 2 * outside.sum() > len(outside):
        raise ValueError(
            f"its boxes are pixel coordinates (xmax {record.boxes[0, 3]:g}); divide them by the "
            "image's height and width when the records are written"
        )


def _is_good(record: records.Record, label_map: Mapping[int, str]) -> bool:
    """Tells whether no box needs a closer look, which takes longer than all other checks."""
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
    # Division may round a side at the edge to a hair beyond it.
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

"""Small records for the tests of this folder."""

import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from mnasdet.data.records import Record, ShardedWriter


def encode(height, width, image_format="JPEG"):
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 3 % 256, columns * 2 % 256, rows + columns], -1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, image_format)
    return file.getvalue()


def make(source_id="a", height=40, width=60, image_format="JPEG", **changes):
    """Two boxes: a cat of 20 x 30 pixels, and a crowd of dogs over the whole image."""
    record = Record(
        source_id=source_id,
        filename=f"{source_id}.jpg",
        encoded=encode(height, width, image_format),
        image_format=image_format.lower(),
        height=height,
        width=width,
        boxes=np.array([[0.25, 0.5, 0.75, 1.0], [0, 0, 1, 1]], np.float32),
        class_ids=np.array([1, 3]),
        class_names=["cat", "dog"],
        area=np.array([600, 1234.5], np.float32),
        is_crowd=np.array([False, True]),
        difficult=np.array([True, False]),
    )
    return dataclasses.replace(record, **changes)


@pytest.fixture
def make_record():
    return make


@pytest.fixture
def encode_image():
    return encode


@pytest.fixture
def write_records(tmp_path):
    """Writes records and returns the shards' paths."""

    def write(records, num_shards=1, name="test.record"):
        with ShardedWriter(tmp_path / name, num_shards) as writer:
            for record in records:
                writer.write(record)
        return writer.paths

    return write

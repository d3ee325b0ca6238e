import hashlib
import io
import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mnasdet.data import records
from mnasdet.errors import DataError

NAMES = {1: "cat", 3: "dog"}


def test_feature_names_and_values(make_record):
    record = make_record()
    features = records.to_example(record).features.feature
    floats = {key: list(features[key].float_list.value) for key in features}
    ints = {key: list(features[key].int64_list.value) for key in features}
    texts = {key: list(features[key].bytes_list.value) for key in features}
    assert len(features) == 16
    assert floats["image/object/bbox/ymin"] == [0.25, 0]
    assert floats["image/object/bbox/xmin"] == [0.5, 0]
    assert floats["image/object/bbox/ymax"] == [0.75, 1]
    assert floats["image/object/bbox/xmax"] == [1, 1]
    assert floats["image/object/area"] == [600, 1234.5]
    assert ints["image/height"] == [40]
    assert ints["image/width"] == [60]
    assert ints["image/object/class/label"] == [1, 3]
    assert ints["image/object/is_crowd"] == [0, 1]
    assert ints["image/object/difficult"] == [1, 0]
    assert texts["image/object/class/text"] == [b"cat", b"dog"]
    assert texts["image/source_id"] == [b"a"]
    assert texts["image/filename"] == [b"a.jpg"]
    assert texts["image/format"] == [b"jpeg"]
    assert texts["image/encoded"] == [record.encoded]
    digest = hashlib.sha256(record.encoded).hexdigest().encode()
    assert texts["image/key/sha256"] == [digest]


def test_round_trip(make_record):
    record = make_record(image_format="PNG")
    read = records.from_example(records.to_example(record))
    for name, value in vars(record).items():
        np.testing.assert_array_equal(getattr(read, name), value, err_msg=name)


def test_area_from_the_box_where_there_is_none(make_record):
    example = records.to_example(make_record())
    for key in ("area", "is_crowd", "difficult", "class/text"):
        del example.features.feature[f"image/object/{key}"]
    # 0.5 * 40 by 0.5 * 60 pixels, and the whole image.
    np.testing.assert_allclose(records.from_example(example).area, [600, 2400])
    parsed = records.decode(records.parse(example.SerializeToString()))
    np.testing.assert_allclose(parsed["area"], [600, 2400])
    np.testing.assert_array_equal(parsed["is_crowd"], [False, False])


@pytest.mark.parametrize("in_dataset", [False, True])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_parse_and_decode(make_record, image_format, in_dataset):
    record = make_record(image_format=image_format)
    serialized = records.to_example(record).SerializeToString()
    if in_dataset:
        dataset = tf.data.Dataset.from_tensors(serialized).map(records.parse).map(records.decode)
        example = next(iter(dataset))
    else:
        example = records.decode(records.parse(serialized))
    with Image.open(io.BytesIO(record.encoded)) as image:
        pixels = np.asarray(image)
    np.testing.assert_allclose(example["image"], pixels, atol=4)
    np.testing.assert_array_equal(example["boxes"], record.boxes)
    np.testing.assert_array_equal(example["classes"], [1, 3])
    np.testing.assert_array_equal(example["is_crowd"], [False, True])
    np.testing.assert_array_equal(example["area"], [600, 1234.5])
    assert example["source_id"] == b"a"
    assert (int(example["height"]), int(example["width"])) == (40, 60)


def test_grey_image_without_boxes(make_record):
    file = io.BytesIO()
    Image.fromarray(np.full((4, 5), 7, np.uint8)).save(file, "PNG")
    nothing = np.zeros(0)
    record = make_record(
        encoded=file.getvalue(),
        height=4,
        width=5,
        boxes=np.zeros((0, 4), np.float32),
        class_ids=np.zeros(0, np.int64),
        class_names=[],
        area=nothing,
        is_crowd=nothing.astype(bool),
        difficult=nothing.astype(bool),
    )
    example = records.decode(records.parse(records.to_example(record).SerializeToString()))
    np.testing.assert_array_equal(example["image"], np.full((4, 5, 3), 7))
    assert example["boxes"].shape == (0, 4)


def test_shards_take_turns(make_record, write_records):
    paths = write_records([make_record(str(i)) for i in range(5)], num_shards=2)
    assert [Path(path).name for path in paths] == [
        "test.record-00000-of-00002",
        "test.record-00001-of-00002",
    ]
    index = record_index.check_records(paths, NAMES, 100)
    assert [mask.tolist() for mask in index.usable] == [[True] * 3, [True] * 2]
    assert index.num_usable == 5
    assert index.problems == ()
    assert index.decoded_bytes == 5 * 40 * 60 * 3


def test_nothing_is_left_of_an_interrupted_writer(make_record, tmp_path):
    with (
        pytest.raises(KeyboardInterrupt),
        records.ShardedWriter(tmp_path / "x.record", 2) as writer,
    ):
        writer.write(make_record())
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_shards_of_another_number_are_not_mixed(make_record, write_records):
    write_records([make_record()], num_shards=3)
    with pytest.raises(DataError, match="test.record-00000-of-00003: is left from a run"):
        write_records([make_record()], num_shards=2)


# What a broken image, box or class does: the change to a good record, and the message.
BAD_RECORDS = [
    ({"boxes": np.array([[0.5, 0.1, 0.5, 0.9]] * 2)}, "box 1 .*ymin 20.* has no size"),
    ({"boxes": np.array([[0.1, 0.9, 0.5, 0.2]] * 2)}, "box 1 .*has no size: min must be below max"),
    ({"boxes": np.array([[0, 0, 1, 1], [0, 0.5, 1, 1.1]])}, "box 2 .*xmax 66.*outside the image"),
    ({"boxes": np.array([[-0.1, 0, 1, 1]] * 2)}, "box 1 .*ymin -4.*outside the image"),
    ({"boxes": np.array([[np.nan, 0, 1, 1]] * 2)}, "box 1 .*ymin nan"),
    ({"class_ids": np.array([1, 2])}, "box 2: class id 2 is not in the label map"),
    ({"class_ids": np.array([1, 0])}, "box 2: class id 0 is not in the label map"),
    ({"class_names": ["dog", "dog"]}, "class 'dog' has id 1 here, 3 in the label map"),
    ({"class_ids": np.array([1])}, "bbox/ymin has 2 values but image/object/class/label has 1"),
    ({"is_crowd": np.array([0])}, "is_crowd has 1 values"),
    ({"encoded": b""}, "image/encoded is missing"),
    ({"encoded": b"no image"}, "no image at all"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_RECORDS)
def test_bad_records_are_named(make_record, write_records, changes, message):
    paths = write_records([make_record("good"), make_record("evil", **changes)])
    index = record_index.check_records(paths, NAMES, 100)
    assert index.usable[0].tolist() == [True, False]
    (problem,) = index.problems
    assert problem.startswith(f"{paths[0]}: record 1 (image 'evil'): ")
    assert re.search(message, problem), problem


def test_rounding_is_no_fault(make_record, write_records):
    boxes = np.array([[0, 0, 1.0 + 1e-6, 1], [-1e-6, 0.2, 0.5, 0.7]], np.float32)
    paths = write_records([make_record(boxes=boxes)])
    assert record_index.check_records(paths, NAMES, 100).problems == ()
    parsed = records.parse(records.to_example(make_record(boxes=boxes)).SerializeToString())
    assert parsed["boxes"].numpy().min() == 0
    assert parsed["boxes"].numpy().max() == 1


def test_stated_size_of_another_image(make_record, write_records, encode_image):
    paths = write_records([make_record(encoded=encode_image(41, 60))])
    (problem,) = record_index.check_records(paths, NAMES, 100).problems
    assert "image/height is 40 but the image has 41" in problem


def test_too_many_boxes(make_record, write_records):
    index = record_index.check_records(write_records([make_record()]), NAMES, 1)
    assert "2 boxes, more than max_number_of_boxes: 1" in index.problems[0]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_truncated_image(make_record, write_records, image_format):
    record = make_record(image_format=image_format)
    short = make_record(encoded=record.encoded[:-40], image_format=image_format)
    index = record_index.check_records(write_records([short]), NAMES, 100)
    assert f"the {image_format} is cut short" in index.problems[0]


def test_stray_marker_in_a_jpeg(make_record, write_records):
    encoded = bytearray(make_record().encoded)
    encoded[-20:-18] = b"\xff\x3b"
    index = record_index.check_records(write_records([make_record(encoded=bytes(encoded))]), NAMES, 100)
    assert "pixels are damaged" in index.problems[0]


def test_other_image_format(make_record, write_records, encode_image):
    bmp = make_record(encoded=encode_image(40, 60, "BMP"))
    index = record_index.check_records(write_records([bmp]), NAMES, 100)
    assert "the image is BMP; JPEG and PNG can be read" in index.problems[0]


def test_progressive_jpeg_is_whole():
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG", progressive=True, optimize=True)
    assert records.image_header(file.getvalue()) == ("jpeg", 64, 64)


def test_truncated_record_file(make_record, write_records):
    (path,) = write_records([make_record(str(i)) for i in range(3)])
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:-7])
    index = record_index.check_records([path], NAMES, 100)
    assert index.usable[0].tolist() == [True, True]
    assert index.problems == (
        f"{path}: record 2: the file is damaged or cut short; nothing from here on can be read",
    )


def test_file_of_another_kind(tmp_path):
    path = tmp_path / "picture.record"
    path.write_bytes(b"this is no TFRecord file at all")
    index = record_index.check_records([str(path)], NAMES, 100)
    assert "no TFRecord file" in index.problems[0]
    assert index.num_usable == 0


def test_record_that_is_no_example(tmp_path):
    path = str(tmp_path / "x.record")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(b"\xff\xff\xff")
    assert record_index.check_records([path], NAMES, 100).problems == (
        f"{path}: record 0: is no tf.train.Example",
    )

import gzip
import hashlib
import io
import re
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mnasdet.data import input_pipeline, pictures, record_index, records
from mnasdet.data.box_records import BoxRecords
from mnasdet.errors import DataError
from mnasdet.protos import input_reader_pb2
from tests.full_disk import full_disk

NAMES = {1: "cat", 3: "dog"}


def parsed(example):
    """Returns an example as training gets it, by way of the check."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/x.record"
        with tf.io.TFRecordWriter(path) as writer:
            writer.write(example.SerializeToString())
        index = record_index.check_records([path], NAMES, BoxRecords(100))
    assert index.num_usable == 1, index.problems
    contents = {key: tf.constant(value) for key, value in index.contents.items()}
    return records.parse(tf.constant(example.SerializeToString()), tf.constant(0), contents)


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
    decoded = records.decode(parsed(example))
    np.testing.assert_allclose(decoded["area"], [600, 2400])
    np.testing.assert_array_equal(decoded["is_crowd"], [False, False])


@pytest.mark.parametrize("in_dataset", [False, True])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_parse_and_decode(make_record, image_format, in_dataset):
    record = make_record(image_format=image_format)
    example = parsed(records.to_example(record))
    if in_dataset:
        example = next(iter(tf.data.Dataset.from_tensors(example).map(records.decode)))
    else:
        example = records.decode(example)
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
    example = records.decode(parsed(records.to_example(record)))
    np.testing.assert_array_equal(example["image"], np.full((4, 5, 3), 7))
    assert example["boxes"].shape == (0, 4)


def test_shards_take_turns(make_record, write_records):
    paths = write_records([make_record(str(i)) for i in range(5)], num_shards=2)
    assert [Path(path).name for path in paths] == [
        "test.record-00000-of-00002",
        "test.record-00001-of-00002",
    ]
    index = record_index.check_records(paths, NAMES, BoxRecords(100))
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


def test_a_full_disk_leaves_the_shards_before_and_names_the_file(make_record, write_records):
    paths = [Path(path) for path in write_records([make_record("a"), make_record("b")], 2)]
    before = [path.read_bytes() for path in paths]
    with (
        full_disk(2000),
        pytest.raises(DataError, match="test.record.*: the records cannot be written: ") as caught,
    ):
        write_records([make_record("c")] * 100, 2)
    assert "\n" not in str(caught.value)
    assert [path.read_bytes() for path in paths] == before
    assert sorted(paths[0].parent.iterdir()) == paths


@pytest.mark.parametrize("name", ["x[1].record", "a*b", "a b\\c", "ü?\n"])
def test_a_name_with_signs_of_patterns_is_a_name(make_record, write_records, tmp_path, name):
    (paths,) = [write_records([make_record(str(i)) for i in range(4)], 2, f"{name}/{name}")]
    assert record_index.check_records(paths, NAMES, BoxRecords(100)).num_usable == 4
    reader = input_reader_pb2.InputReader()
    reader.tf_record_input_reader.input_path.append(f"{tmp_path}/{name}/{name}-00000-of-00002")
    assert input_pipeline.input_files(reader) == paths[:1]
    # In a folder with such a name, patterns go on to be patterns.
    reader.tf_record_input_reader.input_path[:] = [f"{tmp_path}/{name}/*-of-0000?"]
    assert input_pipeline.input_files(reader) == paths
    with pytest.raises(DataError, match="is left from a run with another --num_shards"):
        write_records([make_record()], 3, f"{name}/{name}")


def test_shards_of_another_number_are_not_mixed(make_record, write_records):
    write_records([make_record()], num_shards=3)
    with pytest.raises(DataError, match="test.record-00000-of-00003: is left from a run"):
        write_records([make_record()], num_shards=2)


# Each case breaks an image, box or class of a good record with two boxes: the change, the message
# and the number of boxes left. With none left, the record is lost.
BAD_RECORDS = [
    ({"boxes": np.array([[0.5, 0.1, 0.5, 0.9]] * 2)}, "box 1 .*ymin 20.* has no size", 0),
    ({"boxes": np.array([[0.1, 0.9, 0.5, 0.2]] * 2)}, "box 1 .*has no size: min must be below", 0),
    (
        {"boxes": np.array([[0, 0, 1, 1], [0, 0.9, 1, 1.6]])},
        r"box 2 .*xmax 96.*outside the image of height 40 and width 60 with 86%",
        1,
    ),
    ({"boxes": np.array([[0, 0, 1, 1], [-0.9, 0, 0.1, 1]])}, "box 2 .*ymin -36.*outside the i", 1),
    ({"boxes": np.array([[0, 0, 1, 1], [np.nan, 0, 1, 1]])}, "box 2 .*ymin nan", 1),
    ({"boxes": np.array([[0, 0, 1, 1], [0, 0, np.inf, 1]])}, "box 2 .*ymax inf", 1),
    ({"class_ids": np.array([1, 2]), "class_names": []}, "box 2: class id 2 is not in the la", 1),
    ({"class_ids": np.array([1, 0]), "class_names": []}, "box 2: class id 0 is not in the la", 1),
    (
        {"class_ids": np.array([1, 2]), "class_names": ["cat", "cow"]},
        "box 2: class 'cow' with id 2 is not in the label map",
        1,
    ),
    (
        {"boxes": np.array([[10, 15, 30, 45], [0, 0, 40, 60]])},
        "boxes are pixel coordinates .xmax 45.; divide",
        0,
    ),
    ({"class_names": ["dog"]}, "class/text has 1 values but .*class/label has 2", 0),
    ({"class_ids": np.array([1])}, "bbox/ymin has 2 values but image/object/class/label has 1", 0),
    ({"is_crowd": np.array([0])}, "is_crowd has 1 values", 0),
    ({"encoded": b""}, "image/encoded is missing", 0),
    ({"encoded": b"no image"}, "no image at all", 0),
]


@pytest.mark.parametrize(("changes", "message", "left"), BAD_RECORDS)
def test_bad_records_are_named(make_record, write_records, changes, message, left):
    record = make_record("evil", **{"class_names": []} | changes)
    paths = write_records([make_record("good"), record])
    index = record_index.check_records(paths, NAMES, BoxRecords(100))
    assert index.usable[0].tolist() == [True, left > 0]
    assert len(index.contents["classes"]) == 2 + left
    problem = index.problems[0]
    assert problem.startswith(f"{paths[0]}: record 1 (image 'evil'): ")
    assert re.search(message, problem), problem


def test_a_box_over_the_edge_is_cut_and_counted(make_record, write_records):
    # 3 of 63 columns are outside, so 60 of 63 parts of the stated area are left.
    boxes = np.array([[0, 0, 1, 1.05], [0.25, -0.1, 0.75, 0.1]])
    paths = write_records([make_record(boxes=boxes, area=np.array([630, 300]))])
    index = record_index.check_records(paths, NAMES, BoxRecords(100))
    assert index.problems == ()
    edge = "boxes cut at the edge of their image"
    assert index.notes == {edge: 1, f"{edge} by more than a quarter": 1}
    np.testing.assert_allclose(index.contents["boxes"], [[0, 0, 1, 1], [0.25, 0, 0.75, 0.1]])
    np.testing.assert_allclose(index.contents["area"], [600, 150], rtol=1e-5)


def test_areas_that_are_no_areas(make_record, write_records):
    # Shares of the image, infinity and 0: the boxes have 600 and 2400 square pixels.
    for area in ([0.25, 1.0], [np.inf, 0], [-1, np.nan]):
        paths = write_records([make_record(area=np.array(area))])
        index = record_index.check_records(paths, NAMES, BoxRecords(100))
        np.testing.assert_allclose(index.contents["area"], [600, 2400])


def test_the_text_of_a_class_counts_as_in_the_od_api(make_record, write_records):
    """Texts beside labels of another numbering; texts that the label map does not have; texts
    alone."""
    zero_based = make_record("a", class_ids=np.array([0, 2]), class_names=["cat", "dog"])
    renamed = make_record("b", class_names=["Katze", "Hund"])
    examples = [records.to_example(record) for record in (zero_based, renamed, make_record("c"))]
    del examples[2].features.feature["image/object/class/label"]
    (path,) = write_records([])
    with tf.io.TFRecordWriter(path) as writer:
        for example in examples:
            writer.write(example.SerializeToString())
    index = record_index.check_records([path], NAMES, BoxRecords(100))
    assert index.problems == ()
    assert index.contents["classes"].tolist() == [1, 3] * 3
    assert index.notes == {
        "boxes whose class/text and class/label differ; the text counts": 2,
        "boxes whose class/text is not in the label map; their class/label counts": 2,
        "boxes with a class/text and no class/label": 2,
    }
    # The other names of a label map. "dog" is lost: beside it is a label 2, or none.
    index = record_index.check_records(
        [path], NAMES, BoxRecords(100), {"Katze": 3, "Hund": 1, "cat": 1}
    )
    assert index.contents["classes"].tolist() == [1, 3, 1, 1]
    assert len(index.problems) == 2


def test_lists_of_another_type(make_record, write_records):
    """Flags as floats, areas as integers, source_id as a number; a class as a text is refused."""
    example = records.to_example(make_record())
    feature = example.features.feature
    feature["image/object/is_crowd"].Clear()
    feature["image/object/is_crowd"].float_list.value[:] = [0.0, 1.0]
    feature["image/object/area"].Clear()
    feature["image/object/area"].int64_list.value[:] = [600, 1234]
    feature["image/source_id"].Clear()
    feature["image/source_id"].int64_list.value[:] = [17]
    read = parsed(example)
    assert read["is_crowd"].numpy().tolist() == [False, True]
    assert read["area"].numpy().tolist() == [600, 1234]
    assert read["source_id"].numpy() == b"17"
    feature["image/object/class/label"].Clear()
    feature["image/object/class/label"].bytes_list.value[:] = [b"1", b"3"]
    with pytest.raises(ValueError, match="class/label is a list of bytes, expected numbers"):
        records.from_example(example)


def test_objects_and_crowds_are_counted(make_record, write_records):
    crowds = make_record("b", is_crowd=np.array([True, True]))
    index = record_index.check_records(
        write_records([make_record(), crowds]), NAMES, BoxRecords(100)
    )
    assert (len(index.contents["classes"]), index.contents["is_crowd"].sum()) == (4, 3)


@pytest.mark.parametrize(
    ("compress", "message"),
    [(gzip.compress, "compressed with GZIP; unpack it: gunzip"), (zlib.compress, "with ZLIB")],
)
def test_a_compressed_file_is_named(make_record, write_records, compress, message):
    (path,) = write_records([make_record()])
    Path(path).write_bytes(compress(Path(path).read_bytes()))
    (problem,) = record_index.check_records([path], NAMES, BoxRecords(100)).problems
    assert message in problem


def test_exchanged_height_and_width(make_record, write_records):
    (problem,) = record_index.check_records(
        write_records([make_record(height=60, width=40, encoded=make_record().encoded)]),
        NAMES,
        BoxRecords(100),
    ).problems
    assert "image/height is 60 but the image has 40; they are exchanged" in problem


def test_rounding_is_no_fault(make_record, write_records):
    boxes = np.array([[0, 0, 1.0 + 1e-6, 1], [-1e-6, 0.2, 0.5, 0.7]], np.float32)
    paths = write_records([make_record(boxes=boxes)])
    assert record_index.check_records(paths, NAMES, BoxRecords(100)).problems == ()
    read = parsed(records.to_example(make_record(boxes=boxes)))
    assert read["boxes"].numpy().min() == 0
    assert read["boxes"].numpy().max() == 1


def test_stated_size_of_another_image(make_record, write_records, encode_image):
    paths = write_records([make_record(encoded=encode_image(41, 60))])
    (problem,) = record_index.check_records(paths, NAMES, BoxRecords(100)).problems
    assert "image/height is 40 but the image has 41" in problem


def test_too_many_boxes(make_record, write_records):
    index = record_index.check_records(write_records([make_record()]), NAMES, BoxRecords(1))
    assert "2 boxes, more than max_number_of_boxes: 1" in index.problems[0]


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_truncated_image(make_record, write_records, image_format):
    record = make_record(image_format=image_format)
    short = make_record(encoded=record.encoded[:-40], image_format=image_format)
    index = record_index.check_records(write_records([short]), NAMES, BoxRecords(100))
    assert f"the {image_format} is cut short" in index.problems[0]


@pytest.mark.parametrize("marker", [b"\xff\xc4\0\5", b"\xff\xdd\0\5", b"\xff\xda\0\5"])
def test_a_segment_in_the_pixels_of_a_jpeg(make_record, write_records, marker):
    """The decoder only meets it at the end of the picture: a part of it could be decoded."""
    encoded = make_record().encoded
    middle = (encoded.index(b"\xff\xda") + len(encoded)) // 2
    encoded = encoded[:middle] + marker + encoded[middle:]
    index = record_index.check_records(
        write_records([make_record(encoded=encoded)]), NAMES, BoxRecords(100)
    )
    assert len(index.problems) == 1
    assert "pixels are damaged" in index.problems[0]


def test_stray_marker_in_a_jpeg(make_record, write_records):
    encoded = bytearray(make_record().encoded)
    encoded[-20:-18] = b"\xff\x3b"
    index = record_index.check_records(
        write_records([make_record(encoded=bytes(encoded))]), NAMES, BoxRecords(100)
    )
    assert "pixels are damaged" in index.problems[0]


def test_other_image_format(make_record, write_records, encode_image):
    bmp = make_record(encoded=encode_image(40, 60, "BMP"))
    index = record_index.check_records(write_records([bmp]), NAMES, BoxRecords(100))
    assert "the image is BMP; JPEG and PNG can be read" in index.problems[0]


def test_progressive_jpeg_is_whole():
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(file, "JPEG", progressive=True, optimize=True)
    assert pictures.header(file.getvalue()) == ("jpeg", 64, 64)


def test_truncated_record_file(make_record, write_records):
    (path,) = write_records([make_record(str(i)) for i in range(3)])
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[:-7])
    index = record_index.check_records([path], NAMES, BoxRecords(100))
    assert index.usable[0].tolist() == [True, True]
    assert index.problems == (
        f"{path}: record 2: the file is damaged or cut short; nothing from here on can be read",
    )


def test_file_of_another_kind(tmp_path):
    path = tmp_path / "picture.record"
    path.write_bytes(b"this is no TFRecord file at all")
    index = record_index.check_records([str(path)], NAMES, BoxRecords(100))
    assert "no TFRecord file" in index.problems[0]
    assert index.num_usable == 0


def test_record_that_is_no_example(tmp_path):
    path = str(tmp_path / "x.record")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(b"\xff\xff\xff")
    assert record_index.check_records([path], NAMES, BoxRecords(100)).problems == (
        f"{path}: record 0: is no tf.train.Example",
    )

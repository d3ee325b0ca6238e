"""Tests which problems are found in the data of a config before training starts."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from mnasdet.data import reader_checks
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.protos import input_reader_pb2, pipeline_pb2

NAMES = 'item { id: 1 name: "cat" } item { id: 3 name: "dog" }'


@pytest.fixture
def pipeline(write_records, make_record, tmp_path):
    """A sound data set of four images for training and two for evaluation."""
    (tmp_path / "map.pbtxt").write_text(NAMES)
    config = pipeline_pb2.TrainEvalPipelineConfig()
    config.train_config.batch_size = 4
    resizer = config.model.ssd.image_resizer.fixed_shape_resizer
    resizer.height = resizer.width = 32
    for reader, name, count in (
        (config.train_input_reader, "train.record", 4),
        (config.eval_input_reader.add(), "val.record", 2),
    ):
        images = [make_record(f"{name}{i}") for i in range(count)]
        reader.tf_record_input_reader.input_path[:] = write_records(images, name=name)
        reader.label_map_path = str(tmp_path / "map.pbtxt")
    return config


def test_sound_data_has_no_problems(pipeline):
    assert reader_checks.problems(pipeline, ImageResizer((32, 32))) == []


def test_the_digits_are_not_looked_at(pipeline):
    reader = input_reader_pb2.InputReader(digits_input_reader=input_reader_pb2.DigitsInputReader())
    assert reader_checks.reader_problems(reader, ImageResizer((32, 32)), 8) == []


def test_fewer_images_than_a_batch(pipeline):
    pipeline.train_config.batch_size = 5
    assert reader_checks.problems(pipeline, ImageResizer((32, 32))) == [
        "train_config.batch_size is 5; 4 images are fewer than that; lower it"
    ]


def test_problems_of_both_readers_and_of_label_maps_show_at_once(pipeline, tmp_path):
    pipeline.train_input_reader.tf_record_input_reader.input_path[:] = [f"{tmp_path}/none*"]
    (tmp_path / "zero.pbtxt").write_text('item { id: 0 name: "cat" }\nitem { id: 0 name: "dog" }')
    pipeline.eval_input_reader[0].label_map_path = str(tmp_path / "zero.pbtxt")
    train, evaluation = reader_checks.problems(pipeline, ImageResizer((32, 32)))
    assert train == f"{tmp_path}/none*: no file matches"
    assert evaluation.startswith(f"{tmp_path}/zero.pbtxt: ")


def test_records_of_another_label_map(pipeline, tmp_path, caplog):
    """Their names count, as in training, and it is said."""
    (tmp_path / "other.pbtxt").write_text('item { id: 1 name: "dog" } item { id: 3 name: "cat" }')
    for reader in (pipeline.train_input_reader, *pipeline.eval_input_reader):
        reader.label_map_path = str(tmp_path / "other.pbtxt")
    assert reader_checks.problems(pipeline, ImageResizer((32, 32))) == []
    assert "boxes whose class/text and class/label differ; the text counts: 8" in caplog.text


def test_an_id_with_another_name_in_the_label_map_of_evaluation(
    pipeline, write_records, make_record, tmp_path
):
    # Records without names, so that nothing in them contradicts.
    for reader, name in (
        (pipeline.train_input_reader, "train.record"),
        (pipeline.eval_input_reader[0], "val.record"),
    ):
        images = [make_record(f"{name}{i}", class_names=[]) for i in range(4)]
        reader.tf_record_input_reader.input_path[:] = write_records(images, name=name)
    other = tmp_path / "other.pbtxt"
    other.write_text('item { id: 1 name: "dog" } item { id: 3 name: "cat" }')
    pipeline.eval_input_reader[0].label_map_path = str(other)
    (problem,) = reader_checks.problems(pipeline, ImageResizer((32, 32)))
    assert problem.startswith(f"{other}: id 1 is 'dog', but 'cat' in {tmp_path}/map.pbtxt")


def test_a_packed_file_is_no_record_file(pipeline, tmp_path):
    (path,) = pipeline.train_input_reader.tf_record_input_reader.input_path
    packed = tmp_path / "packed.record"
    packed.write_bytes(gzip.compress(Path(path).read_bytes()))
    pipeline.train_input_reader.tf_record_input_reader.input_path[:] = [str(packed)]
    (problem,) = reader_checks.problems(pipeline, ImageResizer((32, 32)))
    assert problem.startswith(f"{packed}: ")


def with_damaged_pixels(record):
    """A JPEG whose frame is whole and whose coded pixels are not: a code that no table has."""
    encoded = bytearray(record.encoded)
    scan = encoded.rfind(b"\xff\xda")
    encoded[scan + 4 : scan + 7] = b"\x07\x07\x07"
    return bytes(encoded)


def test_pixels_that_cannot_be_decoded(pipeline, write_records, make_record):
    damaged = make_record("b", encoded=with_damaged_pixels(make_record()))
    path = pipeline.train_input_reader.tf_record_input_reader.input_path
    path[:] = write_records([damaged] * 4, name="damaged.record")
    (problem,) = reader_checks.problems(pipeline, ImageResizer((32, 32)))
    assert problem.startswith(f"{path[0]}: record 0 (image 'b'): the pixels are damaged")


def test_bad_records_that_may_be_skipped(pipeline, write_records, make_record):
    reader = pipeline.train_input_reader
    outside = make_record("b", boxes=np.array([[0, 0, 9, 9], [0, 0, 1, 1]], np.float32))
    paths = write_records([outside, *(make_record(str(i)) for i in range(4))], name="mixed.record")
    reader.tf_record_input_reader.input_path[:] = paths
    (problem,) = reader_checks.problems(pipeline, ImageResizer((32, 32)))
    assert problem.startswith(f"{paths[0]}: record 0 (image 'b'): box 1 ")
    reader.bad_records = input_reader_pb2.InputReader.SKIP
    assert reader_checks.problems(pipeline, ImageResizer((32, 32))) == []
    bad = make_record("b", boxes=np.full((2, 4), 9, np.float32))
    reader.tf_record_input_reader.input_path[:] = write_records([bad], name="bad.record")
    (problem,) = reader_checks.problems(pipeline, ImageResizer((32, 32)))
    assert "bad.record-00000-of-00001: has no usable record; the first problem: " in problem


def test_of_large_files_the_first_records_are_looked_at(
    pipeline, write_records, make_record, monkeypatch
):
    monkeypatch.setattr(reader_checks, "_MAX_BYTES", 0)
    outside = make_record("b", boxes=np.array([[0, 0, 9, 9], [0, 0, 1, 1]], np.float32))
    sound = [make_record(str(i)) for i in range(10)]
    paths = pipeline.train_input_reader.tf_record_input_reader.input_path
    paths[:] = write_records([*sound, outside], name="late.record")
    assert reader_checks.problems(pipeline, ImageResizer((32, 32))) == []
    (early,) = write_records([*sound[:9], outside], name="early.record")
    paths.append(early)
    (problem,) = reader_checks.problems(pipeline, ImageResizer((32, 32)))
    assert problem.startswith(f"{early}: record 9 (image 'b')")
    # This file cannot be read at all.
    Path(early).write_bytes(gzip.compress(Path(early).read_bytes()))
    (problem,) = reader_checks.problems(pipeline, ImageResizer((32, 32)))
    assert problem.startswith(f"{early}: ")

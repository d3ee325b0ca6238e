"""Looks at the data of the input readers, with the functions that training calls."""

from __future__ import annotations

import itertools
import os
import tempfile

import tensorflow as tf

from mnasdet.data import input_pipeline, record_index
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.errors import DataError
from mnasdet.protos import input_reader_pb2, pipeline_pb2

# Files up to this size in all are looked at from end to end, which takes seconds.
_MAX_BYTES = 500e6

# Records of each file that are looked at where the files are larger.
_FIRST = 10


def problems(pipeline: pipeline_pb2.TrainEvalPipelineConfig, resizer: ImageResizer) -> list[str]:
    """Returns what is wrong with the files, label maps and records of both readers.

    It reads small data sets completely and of large ones the first records of each file.
    """
    train, (evaluation,) = pipeline.train_input_reader, pipeline.eval_input_reader
    found = [
        *reader_problems(train, resizer, pipeline.train_config.batch_size),
        *reader_problems(evaluation, resizer, batch_size=1),
    ]
    # One file that both readers name has the same problem twice.
    return list(dict.fromkeys(found)) or _different_names(train, evaluation)


def reader_problems(
    reader: input_reader_pb2.InputReader, resizer: ImageResizer, batch_size: int
) -> list[str]:
    """Returns what keeps training or evaluation from reading with this reader."""
    if reader.WhichOneof("input_reader") == "digits_input_reader":
        return []  # Made by mnasdet itself.
    try:
        files = input_pipeline.input_files(reader)
        if sum(tf.io.gfile.stat(file).length for file in files) > _MAX_BYTES:
            _read_first_records(reader, files, resizer)
            return []
        _read(reader, resizer)
    except DataError as error:
        return [str(error)]
    num_images = input_pipeline.num_images(reader)
    if num_images >= batch_size:
        return []
    few = f"{num_images} images are fewer than that; lower it"
    return [f"train_config.batch_size is {batch_size}; {few}"]


def _read(reader: input_reader_pb2.InputReader, resizer: ImageResizer) -> None:
    """Checks all records of a reader and decodes the first picture.

    Raises:
      DataError: as in training.
    """
    with input_pipeline.naming_damaged_images(reader):
        dataset = input_pipeline.evaluation_dataset(reader, resizer=resizer, batch_size=1)
        for _ in dataset.take(1):
            pass


def _read_first_records(
    reader: input_reader_pb2.InputReader, files: list[str], resizer: ImageResizer
) -> None:
    """Does the same with copies of the first records of each file."""
    with tempfile.TemporaryDirectory() as folder:
        copies = {}
        for number, file in enumerate(files):
            copy = os.path.join(folder, f"{number:05}")
            copies[_copied(file, copy)] = file
        first = input_reader_pb2.InputReader()
        first.CopyFrom(reader)
        first.tf_record_input_reader.input_path[:] = copies
        try:
            _read(first, resizer)
        except DataError as error:
            message = str(error)
            # The user knows the files, not their copies.
            for copy, file in copies.items():
                message = message.replace(copy, file)
            raise DataError(message) from None


def _copied(file: str, copy: str) -> str:
    """Returns the path of a copy of the first records, or the file itself if it has not so many.

    What is wrong with such a file shows at its start, so that nothing is read of it but that.
    """
    if record_index.num_whole_records(file, _FIRST) is not None:
        return file
    try:
        with tf.io.TFRecordWriter(copy) as writer:
            for record in itertools.islice(tf.data.TFRecordDataset(file), _FIRST):
                writer.write(record.numpy())
    except tf.errors.OpError:
        return file
    return copy


def _different_names(
    train: input_reader_pb2.InputReader, evaluation: input_reader_pb2.InputReader
) -> list[str]:
    """Reports an id of two names, which would be trained as one class and judged as another."""
    trained, judged = input_pipeline.label_map(train), input_pipeline.label_map(evaluation)
    # An id of one map alone is no contradiction: a split may lack a class.
    for class_id in trained.keys() & judged.keys():
        if trained[class_id] != judged[class_id]:
            return [
                f"{evaluation.label_map_path}: id {class_id} is {judged[class_id]!r}, but "
                f"{trained[class_id]!r} in {train.label_map_path}; evaluate with the label map of "
                "training"
            ]
    return []

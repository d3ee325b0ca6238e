"""Looks at the data of the input readers, with the functions that training calls."""

from __future__ import annotations

import os
import re

import numpy as np
import tensorflow as tf

from mnasdet.data import input_pipeline, records
from mnasdet.errors import DataError
from mnasdet.protos import pipeline_pb2

# Files up to this size are looked at from end to end, which takes seconds.
_MAX_BYTES = 500e6

# Records of each file that are looked at where the files are larger.
_FIRST = 10


def problems(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> list[str]:
    """Returns what is wrong with the files, label maps and records of both readers.

    It reads small data sets completely and of large ones the first records of each file.
    """
    train, (evaluation,) = pipeline.train_input_reader, pipeline.eval_input_reader
    found = [
        *reader_problems(train, pipeline.train_config.batch_size),
        *reader_problems(evaluation, batch_size=1),
    ]
    # One file that both readers name has the same problem twice.
    return list(dict.fromkeys(found)) or _different_names(train, evaluation)


def reader_problems(reader: pipeline_pb2.InputReader, batch_size: int) -> list[str]:
    """Returns what keeps training or evaluation from reading with this reader."""
    if reader.WhichOneof("input_reader") == "digits_input_reader":
        return []  # Made by mnasdet itself.
    try:
        files, names = input_pipeline.input_files(reader), input_pipeline.label_map(reader)
    except DataError as error:
        return [str(error)]
    small = sum(os.path.getsize(file) for file in files if os.path.exists(file)) <= _MAX_BYTES
    index = records.check_records(
        files, names, reader.max_number_of_boxes, limit=None if small else _FIRST
    )
    if index.problems and reader.bad_records == pipeline_pb2.InputReader.FATAL:
        others = len(index.problems) - 1
        return [index.problems[0] + (f"; and {others} more bad records" if others else "")]
    if not index.num_usable:
        first = f"; the first problem: {index.problems[0]}" if index.problems else ""
        return [f"{', '.join(files)}: has no usable record{first}"]
    if small and index.num_usable < batch_size:
        return [
            f"train_config.batch_size is {batch_size}; {index.num_usable} images are fewer than "
            "that; lower it"
        ]
    return _decoding_problems(index)


def _decoding_problems(index: records.RecordIndex) -> list[str]:
    """Parses the records looked at, and decodes the first picture of each file.

    `records.check_records` looks at no pixels, and not with TensorFlow's own parser.
    """
    for file, usable in zip(index.files, index.usable, strict=True):
        mask = tf.data.Dataset.from_tensor_slices(usable)
        looked_at = tf.data.Dataset.zip(tf.data.TFRecordDataset(file).take(len(usable)), mask)
        good = looked_at.filter(lambda _, use: use).map(lambda serialized, _: serialized)
        parsed, num_read = good.map(records.parse), 0
        try:
            for example in parsed.take(1):
                records.decode(example)
            for _ in parsed:
                num_read += 1
        except tf.errors.OpError as error:
            number = np.flatnonzero(usable)[num_read]
            return [f"{file}: record {number}: cannot be read: {_reason(error)}"]
    return []


def _reason(error: tf.errors.OpError) -> str:
    """Returns the first line of TensorFlow's message without its names of nodes and devices."""
    return re.sub(r"\{\{.*?\}\} ?| ?\[Op:.*", "", error.message.split("\n")[0]).strip()


def _different_names(
    train: pipeline_pb2.InputReader, evaluation: pipeline_pb2.InputReader
) -> list[str]:
    """Reports an id of two names, which would be trained as one class and judged as another."""
    trained, judged = input_pipeline.label_map(train), input_pipeline.label_map(evaluation)
    for class_id in trained.keys() & judged.keys():
        if trained[class_id] != judged[class_id]:
            return [
                f"{evaluation.label_map_path}: id {class_id} is {judged[class_id]!r}, but "
                f"{trained[class_id]!r} in {train.label_map_path}; evaluate with the label map of "
                "training"
            ]
    return []

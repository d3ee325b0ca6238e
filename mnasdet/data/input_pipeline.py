"""From record files to batches: tf.data pipelines for training and evaluation."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from mnasdet import files
from mnasdet.data import (
    augmentation,
    image_cache,
    index_cache,
    mosaic,
    pictures,
    preprocessing,
    record_index,
    records,
)
from mnasdet.data import label_map as label_maps
from mnasdet.data.box_records import BoxRecords
from mnasdet.data.classification_records import ClassificationRecords
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.data.record_format import Example, RecordFormat
from mnasdet.errors import DataError, shown
from mnasdet.protos import input_reader_pb2, preprocessor_pb2

# The kinds of records, by the reader's `features`.
_FORMATS: dict[int, Callable[[input_reader_pb2.InputReader], RecordFormat]] = {
    input_reader_pb2.InputReader.BOXES: BoxRecords.from_reader,
    input_reader_pb2.InputReader.IMAGE_CLASS: ClassificationRecords.from_reader,
}

# TensorFlow's names of what decodes, in its errors.
_DECODERS = ("DecodeImage", "DecodeAndCropJpeg")

_DAMAGED = "the pixels are damaged"
_REMEDY = " (bad_records: SKIP in the input reader leaves them out)"

# Bad records that are named one by one in the log; the rest is only counted.
_MAX_NAMED = 20


def training_dataset(
    reader: input_reader_pb2.InputReader,
    *,
    resizer: ImageResizer,
    batch_size: int,
    augmentations: Sequence[preprocessor_pb2.PreprocessingStep],
    transform: Callable[[Example], Any],
    seed: int,
    trainings_at_once: int = 1,
    share: tuple[int, int] = (0, 1),
    start: int = 0,
) -> tf.data.Dataset:
    """Batches without end, in the same order and with the same augmentation for the same seed.

    Args:
      trainings_at_once: how many share the memory of this machine.
      share: (i, n) for part i, from 0, of n equal parts of every batch.
      start: the number of the first example. What comes is what comes from there on in batches that
        start with example 0.
      transform: makes what is batched of one example: `image` [*resizer.image_size, 3] float32
        within [-1, 1]; `boxes` [N, 4] float32 (ymin, xmin, ymax, xmax), normalised to that image
        with its padding; `extent` [2] as of `preprocess`; `classes` [N] int32 from 1; `is_crowd`
        [N] bool; `area` [N] float32, square pixels of the original image; `source_id`; `height` and
        `width` of the original image; `seed` [2] int64, of this example and pass alone. An image
        with a class has no boxes, and the class in `class` int32.

    Raises:
      DataError: for files or records that cannot be used, or fewer images than a batch has.
    """
    index = _index(reader)
    if index.num_usable < batch_size:
        raise DataError(
            f"{_source(reader)}: {index.num_usable} images are fewer than the batch_size "
            f"{batch_size} of train_config; lower it"
        )

    keeps_images = image_cache.keeps_images(reader, index, trainings_at_once)
    decode = records.not_yet_decoded if augmentation.crops_first(augmentations) else records.decode

    def finish(position: tf.Tensor, example: Example) -> Any:
        # The position counts on over the epochs, so every epoch augments anew, and a training that
        # goes on from a checkpoint augments as it would have.
        example_seed = tf.stack([tf.constant(seed, tf.int64), position])
        if not keeps_images:
            example = mosaic.of_all(decode, example)
        example = augmentation.augment(example, augmentations, example_seed)
        resized = _resized(example, resizer.of_whole_images())
        return transform({**resized, "seed": example_seed})

    dataset = _epochs(reader, index, seed, start, keeps_images)
    if augmentation.needs_others(augmentations):
        dataset = mosaic.with_others(dataset)
    dataset = dataset.enumerate(start)
    part, num_parts = share
    part_size = batch_size // num_parts
    if num_parts > 1:
        # Ahead of decoding: a worker decodes no images of the others.
        dataset = dataset.filter(lambda position, _: position % batch_size // part_size == part)
    # Whole batches alone: one shape, traced and compiled once.
    dataset = _map(dataset, finish).batch(part_size, drop_remainder=True)
    return dataset.prefetch(tf.data.AUTOTUNE)


def _epochs(
    reader: input_reader_pb2.InputReader,
    index: record_index.RecordIndex,
    seed: int,
    start: int,
    keeps_images: bool,
) -> tf.data.Dataset:
    """Returns the usable records of one epoch after the other, from example number `start` on.

    The order of an epoch depends on `seed` and its number alone: one that shuffles go on from
    epoch to epoch could only be found again by reading all of them.
    """
    parsed = functools.partial(_parsed, reader, index, damaged=set())

    def read(epoch: tf.Tensor) -> tf.data.Dataset:
        return parsed(_order(seed, epoch) if reader.shuffle else None)

    skipping = reader.bad_records == input_reader_pb2.InputReader.SKIP
    # Epochs without an example would follow one another without end.
    if skipping and not list(parsed(None).take(1)):
        raise DataError(f"{_source(reader)}: has no usable record: the pixels of all are damaged")
    kept: tf.data.Dataset | None = None
    if len(index.files) == 1 or not reader.shuffle:
        # The files have one order. What is made only once is faster.
        kept = parsed(None)
    if keeps_images:
        # Ahead of the augmentation, which differs in every epoch. All epochs begin with the order
        # of files of the first one, as there is one cache.
        kept = _map(tf.data.Dataset.range(1).flat_map(read), records.decode).cache()

    first, num_seen = 0, 0
    if start:
        num_used = int(_used(reader, index).sum())
        # Which images are left out is only known when all are decoded.
        size = sum(1 for _ in parsed(None)) if skipping else num_used
        first, num_seen = divmod(start, size)

    @tf.autograph.experimental.do_not_convert
    def examples_of(epoch: tf.Tensor) -> tf.data.Dataset:
        dataset = read(epoch) if kept is None else kept
        if reader.shuffle:
            buffer_size = min(reader.shuffle_buffer_size, index.num_usable)
            dataset = dataset.shuffle(buffer_size, _order(seed, epoch))
        # Ahead of decoding, where that is not cached: what was seen before costs little.
        return dataset.skip(tf.where(epoch == first, tf.constant(num_seen, tf.int64), 0))

    return (
        tf.data.Dataset.range(first, np.iinfo(np.int64).max)
        .flat_map(examples_of)
        .apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    )


def _order(seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Returns the seed of an epoch's shuffles, in the function that makes the epoch's data set."""
    # A shuffle depends on the seed of its graph, too. That is the function's: TensorFlow's global
    # seed stays as it is.
    tf.compat.v1.set_random_seed(1)
    seeds = tf.stack([tf.constant(seed, tf.int64), epoch])
    return tf.random.stateless_uniform([], seeds, minval=None, maxval=None, dtype=tf.int64)


def evaluation_dataset(
    reader: input_reader_pb2.InputReader, *, resizer: ImageResizer | None, batch_size: int
) -> tf.data.Dataset:
    """Returns every image once, in the order of the records; the last batch may be smaller.

    Args:
      resizer: None gives the original images, uint8, whose sizes differ: one in a batch.

    Returns:
      Batches of the examples that `training_dataset` describes, not augmented and without seeds,
      as the `batched` of their format gives them.

    Raises:
      DataError: for files or records that cannot be used.
    """
    index = _index(reader)

    def finish(example: Example) -> Example:
        return _format(reader).batched(_resized(example, resizer))

    dataset = _map(_parsed(reader, index, None), records.decode)
    if reader.cache_decoded_images:
        dataset = dataset.cache()
    return _map(dataset, finish).batch(batch_size).prefetch(tf.data.AUTOTUNE)


@contextlib.contextmanager
def naming_damaged_images(*readers: input_reader_pb2.InputReader) -> Iterator[None]:
    """Names the image that could not be decoded, around what draws from data sets of the readers.

    What `check_records` looks at is not enough to know that, and TensorFlow's own error names none.

    Raises:
      DataError: in place of that error.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        # The same class of error stands for faults that are no picture's.
        if not any(name in str(error) for name in _DECODERS):
            raise
        for reader in readers:
            if fault := _first_damaged(reader):
                raise DataError(fault + _REMEDY) from None
        raise


def input_files(reader: input_reader_pb2.InputReader) -> list[str]:
    """Returns the record files of a reader, globs resolved.

    Raises:
      DataError: when a file is missing or a glob matches none.
    """
    if reader.WhichOneof("input_reader") == "digits_input_reader":
        return [str(path) for path in _digits(reader)[0]]
    found: list[str] = []
    for pattern in reader.tf_record_input_reader.input_path:
        matching = _matching(pattern)
        if not matching:
            is_glob = any(character in pattern for character in "*?[")
            raise DataError(f"{pattern}: " + ("no file matches" if is_glob else "does not exist"))
        for file in matching:
            if tf.io.gfile.isdir(file):
                raise DataError(f"{file}: is a folder; name record files, as in {file}/*.record*")
        found.extend(matching)
    if not found:
        raise DataError("tf_record_input_reader.input_path is empty; name record files")
    # Globs may overlap: a record that is read twice would count twice.
    return list(dict.fromkeys(found))


def _matching(pattern: str) -> list[str]:
    # TensorFlow knows other file systems, but has no way to say that a [ is a [.
    return sorted(tf.io.gfile.glob(pattern)) if "://" in pattern else files.matching(pattern)


def num_images(reader: input_reader_pb2.InputReader) -> int:
    """Counts the images that training and evaluation can read.

    Raises:
      DataError: as the data sets.
    """
    return _index(reader).num_usable


def check_large_files(*readers: input_reader_pb2.InputReader) -> None:
    """Checks large record files now, so that processes which start later need not.

    Raises:
      DataError: as the data sets.
    """
    for reader in readers:
        if index_cache.keeps(_stamps(reader)):
            _index(reader)


def label_map(reader: input_reader_pb2.InputReader) -> dict[int, str]:
    """Class id to name, of either kind of reader.

    Raises:
      DataError: when the label map is missing or not valid.
    """
    return label_maps.load(_label_map_path(reader))


def _class_ids(reader: input_reader_pb2.InputReader) -> dict[str, int]:
    """Returns the class ids by all names that the label map has for them."""
    by_name, by_display_name = label_maps.load_ids(_label_map_path(reader))
    return by_display_name | by_name


def _label_map_path(reader: input_reader_pb2.InputReader) -> str:
    if reader.WhichOneof("input_reader") == "digits_input_reader":
        return str(_digits(reader)[1])
    if not reader.label_map_path:
        raise DataError("label_map_path of the input reader is empty; name a label map")
    return reader.label_map_path


def _digits(reader: input_reader_pb2.InputReader):
    settings = reader.digits_input_reader
    split = input_reader_pb2.DigitsInputReader.Split.Name(settings.split).lower()
    return _format(reader).digits(split, settings.num_images, settings.image_size)


def _format(reader: input_reader_pb2.InputReader) -> RecordFormat:
    return _FORMATS[reader.features](reader)


def _source(reader: input_reader_pb2.InputReader) -> str:
    return ", ".join(reader.tf_record_input_reader.input_path) or "digits_input_reader"


def _index(reader: input_reader_pb2.InputReader) -> record_index.RecordIndex:
    """Returns the records to use; bad ones are reported as the reader says."""
    index = _checked(
        _stamps(reader),
        tuple(label_map(reader).items()),
        tuple(_class_ids(reader).items()),
        _format(reader),
    )
    if index.problems and reader.bad_records == input_reader_pb2.InputReader.FATAL:
        others = len(index.problems) - 1
        raise DataError(
            index.problems[0] + (f"; and {others} more problems" if others else "") + _REMEDY
        )
    if not index.num_usable:
        raise DataError(
            f"{_source(reader)}: has no usable record"
            + (f"; the first problem: {index.problems[0]}" if index.problems else "")
        )
    return index


def _stamps(reader: input_reader_pb2.InputReader) -> tuple[index_cache.Stamp, ...]:
    # By size and time: a file that was written anew is checked anew.
    return tuple(map(index_cache.stamp, input_files(reader)))


# A search trains thousands of children on the same files.
@functools.lru_cache(maxsize=8)
def _checked(
    stamps: tuple[index_cache.Stamp, ...],
    names: tuple[tuple[int, str], ...],
    ids: tuple[tuple[str, int], ...],
    record_format: RecordFormat,
) -> record_index.RecordIndex:
    """Checks the records, once for every state of the files, and logs what is bad."""
    paths = [stamp.file for stamp in stamps]
    shown = paths[0] + (" ..." if paths[1:] else "")
    index = index_cache.index(
        stamps,
        (names, ids, record_format),
        lambda: record_index.check_records(paths, dict(names), record_format, dict(ids)),
    )
    for problem in index.problems[:_MAX_NAMED]:
        logging.warning("bad record: %s", problem)
    if index.problems:
        logging.warning(
            "%s: %d with a problem, %d records can be used",
            shown,
            len(index.problems),
            index.num_usable,
        )
    for note, count in index.notes.items():
        logging.warning("%s: %s: %d", shown, note, count)
    if index.num_usable and (warning := record_format.warning(index.contents, index.num_usable)):
        logging.warning("%s: %s", ", ".join(paths[:3]), warning)
    return index


def _parsed(
    reader: input_reader_pb2.InputReader,
    index: record_index.RecordIndex,
    shuffle_seed: tf.Tensor | None,
    damaged: set[bytes] | None = None,
) -> tf.data.Dataset:
    """Returns the usable records, not decoded; files in random order if there is a seed.

    Args:
      damaged: gets the ids of images that cannot be decoded; those in it are not told again.
    """
    counts = np.array([len(mask) for mask in index.usable], np.int64)
    starts = np.cumsum(counts) - counts
    used = _used(reader, index)
    # Not a part of the graph, where this is called in a function of a data set.
    with tf.init_scope():
        contents = {key: tf.constant(value) for key, value in index.contents.items()}

    @tf.autograph.experimental.do_not_convert
    def read(file: tf.Tensor) -> tf.data.Dataset:
        first, count = tf.constant(starts)[file], tf.constant(counts)[file]
        dataset = tf.data.TFRecordDataset(tf.constant(index.files)[file]).take(count)
        dataset = tf.data.Dataset.zip(dataset, tf.data.Dataset.range(first, first + count))
        return (
            dataset if used.all() else dataset.filter(lambda _, number: tf.constant(used)[number])
        )

    files = tf.data.Dataset.range(len(index.files))
    if shuffle_seed is not None and len(index.files) > 1:
        # TensorFlow takes the memory of the whole buffer, full or not.
        buffer_size = min(max(1, reader.filenames_shuffle_buffer_size), len(index.files))
        files = files.shuffle(buffer_size, shuffle_seed)
    dataset = files.interleave(
        read,
        cycle_length=max(1, min(reader.num_readers, len(index.files))),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    dataset = _map(dataset, lambda serialized, n: _format(reader).parse(serialized, n, contents))
    if reader.bad_records != input_reader_pb2.InputReader.SKIP:
        return dataset
    return _sound(dataset, set() if damaged is None else damaged)


def _used(reader: input_reader_pb2.InputReader, index: record_index.RecordIndex) -> np.ndarray:
    """Returns for every readable record of all files whether it is read: [records] bool."""
    used = np.concatenate(index.usable)
    # The share is taken of the good records once, not in each pass: the sample is always the same.
    good = np.flatnonzero(used)
    sampled = good[reader.first_sampled_example :: max(1, reader.sample_1_of_n_examples)]
    used[np.setdiff1d(good, sampled)] = False
    return used


def _sound(dataset: tf.data.Dataset, damaged: set[bytes]) -> tf.data.Dataset:
    """Keeps the parsed records whose images can be decoded. It decodes them to see that.

    Adds the others to `damaged`, and tells of each once.
    """

    def look(encoded: bytes, source_id: bytes) -> bool:
        sound = pictures.can_be_decoded(encoded)
        if not sound and source_id not in damaged:
            damaged.add(source_id)
            name = shown(source_id.decode("utf-8", "replace"))
            logging.warning("bad record: image %r: %s; %d so far", name, _DAMAGED, len(damaged))
        return sound

    def looked_at(example: Example) -> tuple[Example, tf.Tensor]:
        inputs = [example["encoded"], example["source_id"]]
        return example, tf.ensure_shape(tf.numpy_function(look, inputs, tf.bool), [])

    return _map(dataset, looked_at).filter(lambda _, sound: sound).map(lambda example, _: example)


def _first_damaged(reader: input_reader_pb2.InputReader) -> str:
    """Returns the first record whose image cannot be decoded, in a line; empty if all can."""
    index = _index(reader)
    for file, usable in zip(index.files, index.usable, strict=True):
        dataset = tf.data.TFRecordDataset(file).take(len(usable))
        for number, serialized in enumerate(dataset.as_numpy_iterator()):
            example = tf.train.Example.FromString(serialized)
            encoded = example.features.feature["image/encoded"].bytes_list.value[:1]
            if usable[number] and not pictures.can_be_decoded(*encoded):
                name = records.source_id(example)
                return f"{file}: record {number} (image {shown(name)!r}): {_DAMAGED}"
    return ""


def _map(dataset: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
    """Maps a function without Python branches on tensors, which is not searched for them."""
    return dataset.map(tf.autograph.experimental.do_not_convert(function), tf.data.AUTOTUNE)


def _resized(example: Example, resizer: ImageResizer | None) -> Example:
    """Returns the example with the network's input for its image, and boxes in that."""
    if resizer is None:
        return {**example, "extent": tf.ones([2])}
    image, extent = preprocessing.preprocess(example["image"], resizer)
    boxes = example["boxes"] * tf.tile(extent, [2])
    return {**example, "image": image, "boxes": boxes, "extent": extent}

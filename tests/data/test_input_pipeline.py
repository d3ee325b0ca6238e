import io
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

from mnasdet.data import input_pipeline, label_map
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.errors import DataError
from mnasdet.protos import input_reader_pb2, preprocessor_pb2

STRETCH = ImageResizer((16, 24))
SQUARE = ImageResizer((24, 24), min_dimension=16)
FLIP = text_format.Parse("random_horizontal_flip {}", preprocessor_pb2.PreprocessingStep())
CROP = text_format.Parse("ssd_random_crop {}", preprocessor_pb2.PreprocessingStep())


@pytest.fixture
def reader(tmp_path, make_record, write_records):
    """Six good records named 0 to 5 in two shards."""
    write_records([make_record(str(i)) for i in range(6)], num_shards=2)
    label_map.save(tmp_path / "map.pbtxt", {1: "cat", 3: "dog"})
    result = input_reader_pb2.InputReader(label_map_path=str(tmp_path / "map.pbtxt"))
    result.tf_record_input_reader.input_path.append(str(tmp_path / "test.record*"))
    return result


def training(
    reader, batch_size=2, augmentations=(), seed=0, transform=None, resizer=STRETCH, start=0
):
    return input_pipeline.training_dataset(
        reader,
        resizer=resizer,
        batch_size=batch_size,
        augmentations=augmentations,
        transform=transform or (lambda e: {"image": e["image"], "id": e["source_id"]}),
        seed=seed,
        start=start,
    )


def ids(dataset, batches):
    taken = dataset.take(batches).as_numpy_iterator()
    return [int(name) for batch in taken for name in batch["id"]]


def test_evaluation(reader):
    dataset = input_pipeline.evaluation_dataset(reader, resizer=STRETCH, batch_size=4)
    batches = list(dataset.as_numpy_iterator())
    assert [len(batch["image"]) for batch in batches] == [4, 2]
    batch = batches[0]
    assert batch["image"].shape == (4, 16, 24, 3)
    assert batch["image"].dtype == np.float32
    assert batch["boxes"].shape == (4, 100, 4)
    np.testing.assert_array_equal(
        batch["boxes"][0, :3], [[0.25, 0.5, 0.75, 1], [0] * 2 + [1] * 2, [0] * 4]
    )
    assert batch["classes"][0, :3].tolist() == [1, 3, 0]
    assert batch["is_crowd"][0, :3].tolist() == [False, True, False]
    assert batch["area"][0, :3].tolist() == [600, 1234.5, 0]
    assert batch["num_boxes"].tolist() == [2] * 4
    assert (batch["height"][0], batch["width"][0]) == (40, 60)
    assert sorted(int(n) for b in batches for n in b["source_id"]) == list(range(6))


def test_every_epoch_has_every_image_in_another_order(reader):
    order = ids(training(reader), 9)
    epochs = [order[start : start + 6] for start in (0, 6, 12)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize("cache", [False, True])
def test_the_seed_decides_all(reader, cache):
    reader.cache_decoded_images = cache
    first, again, other = (
        list(training(reader, augmentations=[FLIP, CROP], seed=seed).take(6).as_numpy_iterator())
        for seed in (1, 1, 2)
    )
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one["id"], two["id"])
        np.testing.assert_array_equal(one["image"], two["image"])
    assert any((one["id"] != two["id"]).any() for one, two in zip(first, other, strict=True))


IN_ORDER, SHUFFLED = "shuffle: false", "shuffle_buffer_size: 3"


@pytest.mark.parametrize(
    "settings",
    [
        SHUFFLED,
        IN_ORDER,
        f"{SHUFFLED} cache_decoded_images: true",
        f"{IN_ORDER} num_readers: 1 sample_1_of_n_examples: 2",
        # The share of the third picture, which cannot be decoded, is not known ahead.
        f"{SHUFFLED} bad_records: SKIP",
        f"{SHUFFLED} bad_records: SKIP cache_decoded_images: true",
    ],
)
def test_a_stream_goes_on_anywhere_as_from_its_beginning(
    reader, make_record, write_records, damaged_record, settings
):
    """The order of epochs, and the augmentation of each image in each epoch."""
    text_format.Merge(settings, reader)
    images = [make_record(str(i)) for i in range(6)]
    if reader.bad_records == input_reader_pb2.InputReader.SKIP:
        images[2] = damaged_record
    write_records(images, num_shards=2)

    def batches(start):
        taken = training(reader, 2, [CROP], seed=3, start=start).take(8 - start // 2)
        return list(taken.as_numpy_iterator())

    whole = batches(0)
    # The first epoch's middle, its end, the middle of a later one.
    for start in (2, 4, 6, 10):
        for one, two in zip(whole[start // 2 :], batches(start), strict=True):
            np.testing.assert_array_equal(one["id"], two["id"])
            np.testing.assert_array_equal(one["image"], two["image"])


def test_where_every_image_is_damaged_it_is_said(reader, write_records, damaged_record):
    set_path(reader, write_records([damaged_record] * 3, name="bad")[0])
    reader.bad_records = input_reader_pb2.InputReader.SKIP
    with pytest.raises(DataError, match="has no usable record: the pixels of all are damaged"):
        training(reader, 1)


def test_the_cache_changes_nothing(reader):
    plain = list(training(reader, augmentations=[FLIP, CROP]).take(6).as_numpy_iterator())
    reader.cache_decoded_images = True
    cached = list(training(reader, augmentations=[FLIP, CROP]).take(6).as_numpy_iterator())
    for one, two in zip(plain, cached, strict=True):
        np.testing.assert_array_equal(one["image"], two["image"])


def test_augmentation_differs_between_epochs(reader):
    reader.shuffle = False
    images = [batch["image"] for batch in training(reader, 6, [CROP]).take(2).as_numpy_iterator()]
    assert (images[0] != images[1]).any()


def test_order_is_permanent(reader):
    # Update only when a change of the order is meant: it changes every training run.
    assert ids(training(reader, seed=3), 6) == PERMANENT_ORDER
    # TensorFlow's own seed has no part in it: the order of a stream is that of `seed`.
    tf.random.set_seed(7)
    assert ids(training(reader, seed=3), 6) == PERMANENT_ORDER


PERMANENT_ORDER = [0, 5, 4, 2, 1, 3, 0, 5, 1, 3, 2, 4]


def test_transform_gets_one_example(reader):
    shapes = {}

    def transform(example):
        shapes.update({key: (value.shape.as_list(), value.dtype) for key, value in example.items()})
        return example["image"]

    batch = next(iter(training(reader, transform=transform)))
    assert batch.shape == (2, 16, 24, 3)
    assert shapes == {
        "image": ([16, 24, 3], tf.float32),
        "boxes": ([None, 4], tf.float32),
        "extent": ([2], tf.float32),
        "classes": ([None], tf.int32),
        "is_crowd": ([None], tf.bool),
        "area": ([None], tf.float32),
        "source_id": ([], tf.string),
        "height": ([], tf.int32),
        "width": ([], tf.int32),
        "seed": ([2], tf.int64),
    }


def test_sample_1_of_n_examples(reader):
    reader.sample_1_of_n_examples = 3
    assert len(set(ids(training(reader, batch_size=2), 6))) == 2
    dataset = input_pipeline.evaluation_dataset(reader, resizer=STRETCH, batch_size=4)
    assert [len(batch["image"]) for batch in dataset] == [2]


def test_bad_records_are_skipped_or_fatal(reader, make_record, write_records):
    """A bad box is lost alone; a record without a good one is lost with its boxes."""
    far = np.array([[0, 0, 1, 1], [0, 0, 9, 1]], np.float32)
    records = [make_record("0"), make_record("1", boxes=far), make_record("2"), make_record("3")]
    records[3] = make_record("3", class_ids=np.array([5, 4]), class_names=[])
    (path,) = write_records(records, name="bad")
    del reader.tf_record_input_reader.input_path[:]
    reader.tf_record_input_reader.input_path.append(path)
    with pytest.raises(DataError, match=r"record 1 .image '1'.: box 2 .*; and 2 more problems"):
        training(reader)
    reader.bad_records = input_reader_pb2.InputReader.SKIP
    assert set(ids(training(reader), 4)) == {0, 1, 2}
    dataset = input_pipeline.evaluation_dataset(reader, resizer=STRETCH, batch_size=4)
    (batch,) = dataset.as_numpy_iterator()
    assert batch["source_id"].tolist() == [b"0", b"1", b"2"]
    assert batch["num_boxes"].tolist() == [2, 1, 2]


def test_names_of_the_label_map(reader, make_record, write_records, tmp_path):
    """Texts are looked up among names and display names; a name of two classes means neither."""
    (tmp_path / "map.pbtxt").write_text(
        "item { id: 1 name: 'n1' display_name: 'cat' } item { id: 2 name: 'n2' display_name: 'ox' }"
        "item { id: 3 name: 'n3' display_name: 'ox' }"
    )
    by_name = make_record("0", class_ids=np.array([7, 7]), class_names=["n3", "cat"])
    by_label = make_record("1", class_ids=np.array([2, 3]), class_names=["ox", "ox"])
    set_path(reader, write_records([by_name, by_label], name="named")[0])
    dataset = input_pipeline.evaluation_dataset(reader, resizer=STRETCH, batch_size=4)
    (batch,) = dataset.as_numpy_iterator()
    assert batch["classes"][:, :2].tolist() == [[3, 1], [2, 3]]


@pytest.mark.parametrize("crowds", [True, False])
def test_nothing_to_find_is_said(reader, make_record, write_records, caplog, crowds):
    empty = np.zeros((0, 4), np.float32)
    nothing = {"boxes": empty, "class_ids": [], "class_names": [], "area": [], "difficult": []}
    changes = {"is_crowd": np.array([True, True])} if crowds else {**nothing, "is_crowd": []}
    set_path(reader, write_records([make_record("0", **changes)], name="nothing")[0])
    input_pipeline.evaluation_dataset(reader, resizer=STRETCH, batch_size=4)
    (message,) = [r.getMessage() for r in caplog.records if "not a crowd" in r.getMessage()]
    assert f"(1 images, {2 if crowds else 0} crowds)" in message


def test_truncated_file_is_used_up_to_the_damage(reader):
    path = Path(input_pipeline.input_files(reader)[0])
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DataError, match="record 2: the file is damaged or cut short"):
        training(reader)
    reader.bad_records = input_reader_pb2.InputReader.SKIP
    assert set(ids(training(reader), 10)) == {0, 1, 2, 3, 5}


def test_a_changed_file_is_checked_again(reader):
    training(reader)
    path = Path(input_pipeline.input_files(reader)[0])
    content = path.read_bytes()
    path.write_bytes(b"x" * len(content))
    os.utime(path, (time.time() + 5, time.time() + 5))
    with pytest.raises(DataError, match="no TFRecord file"):
        training(reader)


def set_path(reader, path):
    del reader.tf_record_input_reader.input_path[:]
    reader.tf_record_input_reader.input_path.append(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r, p: set_path(r, p / "no*.record"), r"no\*\.record: no file matches"),
        (lambda r, p: set_path(r, p / "x.record"), r"x\.record: does not exist"),
        (lambda r, p: set_path(r, p), "is a folder; name record files"),
        (lambda r, p: r.tf_record_input_reader.Clear(), "input_path is empty"),
        (lambda r, p: setattr(r, "label_map_path", ""), "label_map_path .* is empty"),
        (lambda r, p: setattr(r, "label_map_path", str(p / "m")), "m: no such file"),
        (lambda r, p: setattr(r, "max_number_of_boxes", 1), "2 boxes, more than max_number"),
    ],
)
def test_bad_readers(reader, tmp_path, change, message):
    change(reader, tmp_path)
    with pytest.raises(DataError, match=message):
        training(reader)


def test_fewer_images_than_a_batch(reader):
    with pytest.raises(DataError, match="6 images are fewer than the batch_size 7"):
        training(reader, batch_size=7)


@pytest.mark.parametrize("resizer", [STRETCH, SQUARE])
def test_boxes_are_those_of_the_input(reader, resizer):
    # 40 x 60 pixels fill 16 of the square's 24 rows.
    share = 1 if resizer is STRETCH else 16 / 24
    expected = np.array([[0.25, 0.5, 0.75, 1], [0, 0, 1, 1]]) * [share, 1, share, 1]
    batch = next(
        input_pipeline.evaluation_dataset(reader, resizer=resizer, batch_size=2).as_numpy_iterator()
    )
    np.testing.assert_allclose(batch["extent"], [[share, 1]] * 2, atol=1e-6)
    np.testing.assert_allclose(batch["boxes"][0, :2], expected, atol=1e-6)
    keys = ("image", "boxes", "extent")
    dataset = training(reader, transform=lambda e: {k: e[k] for k in keys}, resizer=resizer)
    batch = next(dataset.as_numpy_iterator())
    np.testing.assert_allclose(batch["boxes"][0], expected, atol=1e-6)
    assert batch["image"].shape == (2, *resizer.image_size, 3)
    assert (batch["image"][:, 16:] == -1).all()
    assert batch["image"][:, 15].max() > -0.5


@pytest.fixture
def damaged_record(make_record, encode_image):
    """A picture that has an end, and other pixels than its checksum says."""
    encoded = bytearray(encode_image(40, 60, "PNG"))
    encoded[len(encoded) // 2] ^= 0xFF
    return make_record("2", image_format="PNG", encoded=bytes(encoded))


@pytest.fixture
def damaged_reader(reader, make_record, write_records, damaged_record):
    """The third of four pictures is damaged."""
    images = [make_record(str(i), image_format="PNG") for i in range(4)]
    images[2] = damaged_record
    set_path(reader, write_records(images, name="damaged")[0])
    return reader


def test_a_damaged_image_is_named(damaged_reader):
    message = r"damaged-00000-of-00001: record 2 .image '2'.: the pixels are damaged .bad_records"
    for dataset in (
        training(damaged_reader),
        input_pipeline.evaluation_dataset(damaged_reader, resizer=STRETCH, batch_size=4),
    ):
        with (
            pytest.raises(DataError, match=message),
            input_pipeline.naming_damaged_images(damaged_reader),
        ):
            list(dataset.take(2))


def test_a_damaged_image_is_named_where_a_part_is_decoded(reader, make_record, write_records):
    """Decoding any part of a progressive JPEG reads all its scans; the check reads none."""
    file = io.BytesIO()
    noise = np.random.RandomState(0).randint(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(noise).save(file, "JPEG", progressive=True)
    encoded = file.getvalue()
    # A scan in the middle has the length of none.
    scan = [found.start() for found in re.finditer(b"\xff\xda", encoded)][3]
    damaged = encoded[: scan + 3] + b"\x0b" + encoded[scan + 4 :]
    images = [make_record(str(i), encoded=damaged if i == 1 else encoded) for i in range(3)]
    set_path(reader, write_records(images, name="part")[0])
    message = r"part-00000-of-00001: record 1 .image '1'.: the pixels are damaged .bad_records"
    dataset = training(reader, augmentations=[FLIP, CROP])
    with (
        pytest.raises(DataError, match=message),
        input_pipeline.naming_damaged_images(reader),
    ):
        list(dataset.take(2))


def test_other_errors_stay_what_they_are(reader):
    with (
        pytest.raises(tf.errors.InvalidArgumentError, match="Incompatible shapes"),
        input_pipeline.naming_damaged_images(reader),
    ):
        tf.constant([1, 2]) + tf.constant([1, 2, 3])


@pytest.mark.parametrize("cache", [False, True])
def test_a_damaged_image_is_skipped_and_counted(damaged_reader, cache, caplog):
    damaged_reader.bad_records = input_reader_pb2.InputReader.SKIP
    damaged_reader.cache_decoded_images = cache
    assert set(ids(training(damaged_reader), 6)) == {0, 1, 3}
    text = "bad record: image '2': the pixels are damaged; 1 so far"
    assert [record.getMessage() for record in caplog.records].count(text) == 1
    dataset = input_pipeline.evaluation_dataset(damaged_reader, resizer=STRETCH, batch_size=4)
    assert [batch["source_id"].tolist() for batch in dataset.as_numpy_iterator()] == [
        [b"0", b"1", b"3"]
    ]


def test_digits_reader(tmp_path, monkeypatch):
    monkeypatch.setenv("MNASDET_CACHE_DIR", str(tmp_path))
    reader = input_reader_pb2.InputReader()
    reader.digits_input_reader.num_images = 6
    reader.digits_input_reader.image_size = 32
    reader.digits_input_reader.split = input_reader_pb2.DigitsInputReader.VALIDATION
    assert input_pipeline.label_map(reader)[10] == "9"
    (path,) = input_pipeline.input_files(reader)
    assert "validation-6x32" in path
    batch = next(iter(training(reader, 6, [FLIP, CROP])))
    assert batch["image"].shape == (6, 16, 24, 3)

import io

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from PIL import Image

from mnasdet.data import (
    augmentation,
    classification_records,
    input_pipeline,
    label_map,
    reader_checks,
    records,
)
from mnasdet.data.classification_records import ClassifiedImage
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.errors import DataError
from mnasdet.protos import input_reader_pb2, preprocessor_pb2

NAMES = {1: "tench, Tinca tinca", 2: "goldfish", 3: "shark"}
RESIZER = ImageResizer((32, 32))


def image(number=0, class_id=1, height=40, width=60, **changes):
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 10 * number, np.uint8)).save(file, "PNG")
    fields = {
        "source_id": f"picture {number}",
        "filename": f"{number}.png",
        "encoded": file.getvalue(),
        "image_format": "png",
        "height": height,
        "width": width,
        "class_id": class_id,
        "class_name": NAMES.get(class_id, ""),
    }
    return ClassifiedImage(**(fields | changes))


@pytest.fixture
def reader(tmp_path):
    """A reader of the images that it is called with."""

    def write(images, bad_records="FATAL"):
        path = tmp_path / "classes.record"
        to_example = classification_records.to_example
        with records.ShardedWriter(path, 1, to_example) as writer:
            for one in images:
                writer.write(one)
        label_map.save(tmp_path / "labels.pbtxt", NAMES)
        return text_format.Parse(
            f"features: IMAGE_CLASS bad_records: {bad_records} shuffle: false "
            f'label_map_path: "{tmp_path}/labels.pbtxt" '
            f'tf_record_input_reader {{ input_path: "{path}*" }}',
            input_reader_pb2.InputReader(),
        )

    return write


def evaluated(reader, batch_size=2):
    dataset = input_pipeline.evaluation_dataset(reader, resizer=RESIZER, batch_size=batch_size)
    return list(dataset.as_numpy_iterator())


def test_features_are_those_of_imagenet():
    features = classification_records.to_example(image(class_id=2)).features.feature
    assert features["image/class/label"].int64_list.value[:] == [2]
    assert features["image/class/text"].bytes_list.value[:] == [b"goldfish"]
    assert features["image/encoded"].bytes_list.value[:] == [image().encoded]
    assert not any(name.startswith("image/object") for name in features)


def test_round_trip():
    one = image(3, 2)
    example = classification_records.to_example(one)
    assert classification_records.from_example(example) == one


def test_a_label_counts_and_a_text_stands_in_for_it():
    sentence = classification_records.to_example(image(class_name="goldfish, Carassius auratus"))
    ids = {"goldfish": 2}
    assert classification_records.from_example(sentence, ids).class_id == 1
    example = classification_records.to_example(image(class_name="goldfish"))
    with pytest.raises(ValueError, match="label is 1, and .*text 'goldfish' is class 2 of the"):
        classification_records.from_example(example, ids)
    del example.features.feature["image/class/label"]
    assert classification_records.from_example(example, ids).class_id == 2


def test_batches_of_evaluation(reader):
    batches = evaluated(reader([image(0, 1), image(1, 3), image(2, 2)]))
    assert [list(batch["class"]) for batch in batches] == [[1, 3], [2]]
    assert batches[0]["image"].shape == (2, 32, 32, 3)
    np.testing.assert_allclose(batches[0]["image"][1], 10 / 127.5 - 1, atol=1e-6)
    assert list(batches[0]["source_id"]) == [b"picture 0", b"picture 1"]
    assert "boxes" not in batches[0]


@pytest.mark.parametrize(
    "step",
    [
        "random_crop_image { min_object_covered: 0.1 min_area: 0.08 }",
        "random_horizontal_flip {}",
        "random_distort_color {}",
        "random_pad_image {}",
        "ssd_random_crop {}",
        "rand_augment {}",
    ],
)
def test_augmentations_take_images_without_boxes(reader, step):
    step = text_format.Parse(step, preprocessor_pb2.PreprocessingStep())
    dataset = input_pipeline.training_dataset(
        reader([image(1, 3, 200, 300)]),
        resizer=RESIZER,
        batch_size=1,
        augmentations=[step],
        transform=lambda example: {key: example[key] for key in ("image", "class", "seed")},
        seed=5,
    )
    first, second = list(dataset.take(2).as_numpy_iterator())
    assert first["image"].shape == (1, 32, 32, 3)
    assert first["class"] == second["class"] == [3]
    # Every pass has a seed of its own.
    assert first["seed"].tolist() == [[5, 0]]
    assert second["seed"].tolist() == [[5, 1]]


def test_training_crops_have_the_areas_and_shapes_of_inception():
    """random_crop_image with its numbers, where the object is the whole image."""
    step = text_format.Parse(
        "random_crop_image { min_object_covered: 0.08 min_area: 0.08 max_aspect_ratio: 1.3333 }",
        preprocessor_pb2.PreprocessingStep(),
    )
    example = {
        "image": tf.zeros([200, 300, 3], tf.uint8),
        "boxes": tf.zeros([0, 4]),
        "classes": tf.zeros([0], tf.int32),
        "is_crowd": tf.zeros([0], tf.bool),
        "area": tf.zeros([0]),
    }
    sizes = np.array(
        [
            augmentation.augment(example, [step], tf.constant([0, seed], tf.int64))["image"].shape[
                :2
            ]
            for seed in range(200)
        ]
    )
    areas, ratios = sizes.prod(axis=1) / 60000, sizes[:, 1] / sizes[:, 0]
    assert 0.079 < areas.min() < 0.12
    assert areas.max() > 0.75
    assert 0.74 < ratios.min() < 0.8
    assert 1.27 < ratios.max() < 1.35


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_id": 4, "class_name": "crab"}, "class 'crab' with id 4 is not in the label map"),
        ({"class_id": 4, "class_name": ""}, "class id 4 is not in the label map"),
        ({"class_id": 0}, "class id 0 is not in the label map; ids start at 1"),
        ({"encoded": b""}, "image/encoded is missing"),
        ({"encoded": b"nothing"}, "the image is damaged or no image at all"),
        (
            {"width": 40, "height": 60, "encoded": image().encoded},
            "image/height is 60 but the image has 40; they are exchanged",
        ),
    ],
)
def test_bad_records_end_the_run_or_are_left_out(reader, change, message):
    images = [image(0), image(1, **change), image(2, 3)]
    with pytest.raises(DataError) as error:
        evaluated(reader(images))
    assert f"record 1 (image 'picture 1'): {message}" in str(error.value)
    assert "\n" not in str(error.value)
    kept = evaluated(reader(images, "SKIP"), batch_size=5)
    assert [list(batch["class"]) for batch in kept] == [[1, 3]]


def test_several_classes_and_none():
    example = classification_records.to_example(image())
    label = example.features.feature["image/class/label"].int64_list.value
    label.append(2)
    with pytest.raises(ValueError, match="image/class/label has 2 values; an image has one class"):
        classification_records.from_example(example)
    for name in ("label", "text"):
        del example.features.feature[f"image/class/{name}"]
    with pytest.raises(ValueError, match="image/class/label is missing"):
        classification_records.from_example(example)


def test_records_with_boxes_have_no_class(reader, make_record, write_records):
    of_classes = reader([image()])
    of_classes.tf_record_input_reader.input_path[:] = write_records([make_record()])
    (problem,) = reader_checks.reader_problems(of_classes, RESIZER, batch_size=1)
    assert "image/class/label is missing" in problem


def test_a_file_that_is_cut_short(reader, tmp_path):
    of_classes = reader([image(number) for number in range(3)])
    (path,) = tmp_path.glob("classes.record-*")
    path.write_bytes(path.read_bytes()[:-20])
    (problem,) = reader_checks.reader_problems(of_classes, RESIZER, batch_size=1)
    assert "record 2: the file is damaged or cut short" in problem


def test_digits_are_crops_of_the_handwritten_ones(tmp_path, monkeypatch):
    monkeypatch.setenv("MNASDET_CACHE_DIR", str(tmp_path))
    reader = text_format.Parse(
        "features: IMAGE_CLASS digits_input_reader { split: VALIDATION num_images: 40 "
        "image_size: 32 }",
        input_reader_pb2.InputReader(),
    )
    (batch,) = evaluated(reader, batch_size=40)
    from sklearn.datasets import load_digits

    # Validation takes the digits behind the first 1400 of the order, one after the other.
    order = np.random.RandomState(0).permutation(1797)[1400:1440]
    np.testing.assert_array_equal(batch["class"], load_digits().target[order] + 1)
    # Dark ink on light paper, in most of the picture's height.
    dark = (batch["image"].mean(axis=-1) < 0).any(axis=2).sum(axis=1)
    assert 15 <= np.median(dark) <= 29
    assert input_pipeline.label_map(reader)[10] == "9"

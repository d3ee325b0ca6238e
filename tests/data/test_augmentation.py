import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet.data import augmentation
from mnasdet.errors import ConfigError
from mnasdet.protos import train_pb2

HEIGHT, WIDTH = 60, 80


def step(text):
    return text_format.Parse(text, train_pb2.PreprocessingStep())


def example():
    """Red tells the row, green the column; three boxes of 30x20, 30x40 and 6x8 pixels."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    image = np.stack([rows, columns, np.zeros_like(rows)], -1).astype(np.uint8)
    return {
        "image": tf.constant(image),
        "boxes": tf.constant(
            [[0.25, 0.5, 0.75, 0.75], [0.5, 0.0, 1.0, 0.5], [0.1, 0.1, 0.2, 0.2]], tf.float32
        ),
        "classes": tf.constant([1, 2, 3]),
        "is_crowd": tf.constant([False, True, False]),
        "area": tf.constant([600.0, 1200.0, 48.0]),
        "source_id": tf.constant("a"),
    }


def augment(steps, seed, in_dataset):
    """One augmented example as numpy, eager or from Dataset.map."""
    steps = [step(text) for text in steps]
    seed = tf.constant([7, seed], tf.int64)
    if in_dataset:
        dataset = tf.data.Dataset.from_tensors((example(), seed))
        dataset = dataset.map(lambda x, s: augmentation.augment(x, steps, s))
        result = next(iter(dataset))
    else:
        result = augmentation.augment(example(), steps, seed)
    return {key: value.numpy() for key, value in result.items()}


ALL_STEPS = [
    "random_horizontal_flip {}",
    "random_vertical_flip {}",
    "random_image_scale { min_scale_ratio: 0.5 max_scale_ratio: 1.5 }",
    "random_crop_image { min_object_covered: 0.5 random_coef: 0.2 }",
    "ssd_random_crop {}",
    "ssd_random_crop { operations { min_object_covered: 0.3 min_aspect_ratio: 0.8 "
    "max_aspect_ratio: 1.2 min_area: 0.2 max_area: 0.9 overlap_thresh: 0.4 } }",
    "random_scale_crop_and_pad_to_square { output_size: 48 scale_min: 0.5 scale_max: 2.0 }",
]


@pytest.mark.parametrize("text", ALL_STEPS)
def test_eager_and_dataset_agree_and_boxes_stay_valid(text):
    for seed in range(3):
        eager, mapped = augment([text], seed, False), augment([text], seed, True)
        assert eager.keys() == mapped.keys()
        for key in eager:
            np.testing.assert_array_equal(eager[key], mapped[key], err_msg=key)
        assert eager["image"].dtype == np.uint8
        boxes = eager["boxes"]
        assert boxes.shape == (len(eager["classes"]), 4)
        assert len(eager["is_crowd"]) == len(eager["area"]) == len(boxes)
        assert (boxes >= 0).all()
        assert (boxes <= 1).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all()


@pytest.mark.parametrize("text", ALL_STEPS)
def test_images_without_boxes(text):
    empty = {key: value[:0] for key, value in example().items() if key in augmentation._OF_BOXES}
    result = augmentation.augment({**example(), **empty}, [step(text)], tf.constant([1, 2]))
    assert result["boxes"].shape == (0, 4)
    assert min(result["image"].shape) > 0


def test_horizontal_flip():
    seen = set()
    for seed in range(8):
        result = augment(["random_horizontal_flip {}"], seed, False)
        flipped = result["image"][0, 0, 1] == WIDTH - 1
        seen.add(bool(flipped))
        columns = np.arange(WIDTH)[::-1] if flipped else np.arange(WIDTH)
        np.testing.assert_array_equal(result["image"][0, :, 1], columns)
        expected = [0.25, 0.25, 0.75, 0.5] if flipped else [0.25, 0.5, 0.75, 0.75]
        np.testing.assert_allclose(result["boxes"][0], expected)
    assert seen == {False, True}


def test_vertical_flip():
    seen = set()
    for seed in range(8):
        result = augment(["random_vertical_flip {}"], seed, False)
        flipped = result["image"][0, 0, 0] == HEIGHT - 1
        seen.add(bool(flipped))
        expected = [0, 0, 0.5, 0.5] if flipped else [0.5, 0, 1, 0.5]
        np.testing.assert_allclose(result["boxes"][1], expected)
    assert seen == {False, True}


def test_image_scale_keeps_the_boxes():
    result = augment(["random_image_scale { min_scale_ratio: 0.5 max_scale_ratio: 0.5 }"], 0, False)
    assert result["image"].shape == (HEIGHT // 2, WIDTH // 2, 3)
    np.testing.assert_array_equal(result["boxes"], example()["boxes"])


def window_of(image):
    """(ymin, xmin, ymax, xmax) of a crop, read off its pixels."""
    return image[0, 0, 0], image[0, 0, 1], image[-1, -1, 0] + 1, image[-1, -1, 1] + 1


@pytest.mark.parametrize("overlap_thresh", [0.0, 0.4, 1.0])
def test_crops_against_numpy(overlap_thresh):
    text = (
        "random_crop_image { min_object_covered: 0.3 min_aspect_ratio: 0.5 max_aspect_ratio: 2 "
        f"min_area: 0.1 max_area: 0.6 overlap_thresh: {overlap_thresh} }}"
    )
    dropped = 0
    for seed in range(20):
        result = augment([text], seed, False)
        top, left, bottom, right = (float(side) for side in window_of(result["image"]))
        height, width = bottom - top, right - left
        assert result["image"].shape == (height, width, 3)
        assert 0.08 <= height * width / (HEIGHT * WIDTH) <= 0.62
        kept = []
        for number, box in enumerate(example()["boxes"].numpy() * ([HEIGHT, WIDTH] * 2), start=1):
            ymin, xmin = max(box[0], top), max(box[1], left)
            ymax, xmax = min(box[2], bottom), min(box[3], right)
            inner = max(0, ymax - ymin) * max(0, xmax - xmin)
            share = inner / ((box[2] - box[0]) * (box[3] - box[1]))
            if share >= overlap_thresh - 1e-3 and ymax - ymin >= 0.999 and xmax - xmin >= 0.999:
                kept.append((number, [ymin - top, xmin - left, ymax - top, xmax - left]))
        dropped += 3 - len(kept)
        assert result["classes"].tolist() == [number for number, _ in kept]
        assert result["is_crowd"].tolist() == [number == 2 for number, _ in kept]
        expected = np.array([box for _, box in kept]).reshape(-1, 4) / ([height, width] * 2)
        np.testing.assert_allclose(result["boxes"], expected, atol=1e-5)
    assert dropped > 0


def test_random_coef_leaves_the_image():
    result = augment(["random_crop_image { random_coef: 1.0 }"], 0, False)
    np.testing.assert_array_equal(result["image"], example()["image"])
    np.testing.assert_array_equal(result["boxes"], example()["boxes"])


def test_ssd_default_operations():
    # The OD API's: seven least overlaps, aspect ratios 1/2 to 2, at least a tenth of the area.
    covered = [op.min_object_covered for op in augmentation.SSD_CROP_OPERATIONS]
    assert covered == [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0]
    sizes = {augment(["ssd_random_crop {}"], seed, False)["image"].shape for seed in range(20)}
    assert (HEIGHT, WIDTH, 3) in sizes
    assert len(sizes) > 10


def test_small_scale_pads_to_the_right_and_below():
    text = "random_scale_crop_and_pad_to_square { output_size: 80 scale_min: 0.5 scale_max: 0.5 }"
    result = augment([text], 0, False)
    # 60 x 80 becomes 30 x 40 in a square of 80.
    assert result["image"].shape == (80, 80, 3)
    assert result["image"][30:].max() == 0
    assert result["image"][:, 40:].max() == 0
    expected = example()["boxes"].numpy() * [30 / 80, 0.5, 30 / 80, 0.5]
    np.testing.assert_allclose(result["boxes"], expected, atol=1e-6)


def test_large_scale_crops():
    text = "random_scale_crop_and_pad_to_square { output_size: 80 scale_min: 2 scale_max: 2 }"
    for seed in range(5):
        result = augment([text], seed, False)
        image = result["image"].astype(float)
        # 60 x 80 becomes 120 x 160, so 40 x 40 of the original pixels are seen at twice the size.
        assert image.shape == (80, 80, 3)
        assert image[-1, -1, 0] - image[0, 0, 0] == pytest.approx(39, abs=1)
        assert image[-1, -1, 1] - image[0, 0, 1] == pytest.approx(39, abs=1)
        for number, box in zip(result["classes"], result["boxes"], strict=True):
            ymin, xmin, ymax, xmax = example()["boxes"].numpy()[number - 1] * ([HEIGHT, WIDTH] * 2)
            middle = (box[:2] + box[2:]) / 2 * 80
            row, column = middle.astype(int)
            assert ymin - 1 <= image[row, column, 0] <= ymax
            assert xmin - 1 <= image[row, column, 1] <= xmax


def test_order_and_seeds_of_the_steps_are_permanent():
    # Update only when a change of the augmentation is meant: it changes every training run.
    steps = ["random_horizontal_flip {}", "ssd_random_crop {}", "random_vertical_flip {}"]
    found = [augment(steps, seed, True) for seed in range(3)]
    assert [list(result["image"].shape[:2]) for result in found] == PERMANENT_SIZES
    assert [result["image"][0, 0, :2].tolist() for result in found] == PERMANENT_CORNERS


PERMANENT_SIZES = [[46, 72], [60, 80], [54, 74]]
PERMANENT_CORNERS = [[47, 74], [0, 0], [58, 5]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ssd_random_crop { operations {} }", r"ssd_random_crop.operations\[0\]: min_aspect_ratio"),
        ("random_crop_image { min_area: 0.5 max_area: 0.2 }", "min_area 0.5 and max_area 0.2"),
        ("random_crop_image { max_area: 1.5 }", "max_area 1.5: at most 1"),
        ("", "names no operation"),
    ],
)
def test_bad_steps(text, message):
    with pytest.raises(ConfigError, match=message):
        augmentation.augment(example(), [step(text)], tf.constant([0, 0]))

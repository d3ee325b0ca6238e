import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from mnasdet.data import rand_augmentation
from tests.data.coded_picture import augment, example

BOTH = pytest.mark.parametrize("traced", [False, True])
HEIGHT, WIDTH = 24, 32


@pytest.fixture(scope="module")
def picture():
    random = np.random.RandomState(0)
    small = Image.fromarray(random.randint(20, 230, (5, 6, 3)).astype(np.uint8))
    return np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def changed(name, image, level, traced):
    """The image after one operation, eager or as a part of tf.data."""
    operation = rand_augmentation.OPERATIONS[name]
    if not traced:
        return operation(tf.constant(image), tf.constant(level)).numpy()
    dataset = tf.data.Dataset.from_tensors(image).map(lambda x: operation(x, tf.constant(level)))
    return next(dataset.as_numpy_iterator())


def inside(image):
    return image[1:-1, 1:-1].astype(int)


# PIL's result for an image at a level. RandAugment's paper used PIL.
PIL = {
    "identity": lambda image, level: image,
    "auto_contrast": lambda image, level: ImageOps.autocontrast(image),
    "equalize": lambda image, level: ImageOps.equalize(image),
    "posterize": lambda image, level: ImageOps.posterize(image, 8 - round(4 * abs(level))),
    "solarize": lambda image, level: ImageOps.solarize(image, 256 * (1 - abs(level))),
    "color": lambda image, level: ImageEnhance.Color(image).enhance(1 + 0.9 * level),
    "contrast": lambda image, level: ImageEnhance.Contrast(image).enhance(1 + 0.9 * level),
    "brightness": lambda image, level: ImageEnhance.Brightness(image).enhance(1 + 0.9 * level),
    "sharpness": lambda image, level: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * level),
    "rotate": lambda image, level: image.rotate(
        30 * level, Image.Resampling.BILINEAR, fillcolor=(128,) * 3
    ),
    "shear_x": lambda image, level: _affine(
        image, (1, 0.3 * level, -0.3 * level * HEIGHT / 2, 0, 1, 0)
    ),
    "shear_y": lambda image, level: _affine(
        image, (1, 0, 0, 0.3 * level, 1, -0.3 * level * WIDTH / 2)
    ),
    "translate_x": lambda image, level: _affine(image, (1, 0, 0.45 * level * WIDTH, 0, 1, 0)),
    "translate_y": lambda image, level: _affine(image, (1, 0, 0, 0, 1, 0.45 * level * HEIGHT)),
}


def _affine(image, numbers):
    method, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return image.transform(image.size, method, numbers, bilinear, fillcolor=(128,) * 3)


def test_there_are_the_14_operations_of_the_paper():
    assert set(rand_augmentation.OPERATIONS) == set(PIL)
    assert len(PIL) == 14


@BOTH
@pytest.mark.parametrize("level", [-1.0, -0.5, 0.5, 1.0])
@pytest.mark.parametrize("name", PIL)
def test_operations_are_those_of_pil(name, level, traced, picture):
    expected = inside(np.asarray(PIL[name](Image.fromarray(picture), level)))
    result = inside(changed(name, picture, level, traced))
    difference = np.abs(result - expected)
    if name in ("rotate", "shear_x", "shear_y", "translate_x", "translate_y"):
        # PIL blends nothing with what lies outside: at its border whole pixels differ.
        assert np.median(difference) <= 1
        assert (difference > 2).mean() < 0.12
        assert np.abs(result - inside(picture)).mean() > 5
    else:
        # PIL cuts off what we round.
        assert difference.max() <= 2


@pytest.mark.parametrize("name", PIL)
def test_a_level_of_0_changes_nothing(name, picture):
    if name not in ("auto_contrast", "equalize"):
        np.testing.assert_array_equal(changed(name, picture, 0.0, False), picture)


@pytest.mark.parametrize("name", PIL)
def test_images_of_one_colour_and_of_one_pixel(name):
    for shape in ((1, 1, 3), (2, 5, 3)):
        image = np.full(shape, 77, np.uint8)
        assert changed(name, image, 1.0, False).shape == shape


def test_a_translation_by_whole_pixels(picture):
    # 0.45 / 0.9 of 32 columns.
    level = 4 / 32 / 0.45
    result = changed("translate_x", picture, level, False)
    np.testing.assert_array_equal(result[:, :-4], picture[:, 4:])
    assert (result[:, -4:] == 128).all()


# Rows 20 to 40 and columns 24 to 60 of 60 x 80 pixels.
SQUARE = (20, 24, 40, 60)


def distorted(monkeypatch, name, seed, box, magnitude=5.0):
    """A green box on blue after one operation."""
    size = (60, 80)
    monkeypatch.setattr(rand_augmentation, "OPERATIONS", {name: rand_augmentation.OPERATIONS[name]})
    image = np.full((*size, 3), (0, 0, 255), np.uint8)
    image[box[0] : box[2], box[1] : box[3]] = (0, 255, 0)
    changes = {
        "image": tf.constant(image),
        "boxes": tf.constant([np.array(box) / (size * 2), [0.0, 0.0, 1.0, 1.0]], tf.float32),
        "classes": tf.constant([5, 6]),
        "is_crowd": tf.constant([True, False]),
        "area": tf.constant([720.0, 4800.0]),
    }
    result = rand_augmentation.rand_augment(
        example(**changes), tf.constant([0, seed], tf.int64), num_layers=1, magnitude=magnitude
    )
    return {key: value.numpy() for key, value in result.items()}


def green_box(image):
    rows, columns = np.nonzero((image[..., 1] > 190) & (image[..., 2] < 64))
    return rows.min(), columns.min(), rows.max() + 1, columns.max() + 1


@pytest.mark.parametrize(
    ("name", "magnitude"),
    [("rotate", 6), ("shear_x", 10), ("shear_y", 10), ("translate_x", 5), ("translate_y", 5)],
)
def test_boxes_move_with_the_pixels(monkeypatch, name, magnitude):
    found = [distorted(monkeypatch, name, seed, SQUARE, magnitude) for seed in range(8)]
    for result in found:
        assert result["classes"].tolist() == [5, 6]
        assert result["area"].tolist() == [720, 4800]
        assert result["is_crowd"].tolist() == [True, False]
        expected = green_box(result["image"])
        # The corners of a turned box are thinner than the pixels that count as green.
        np.testing.assert_allclose(result["boxes"][0] * [60, 80, 60, 80], expected, atol=1.3)
        assert np.abs(np.subtract(expected, SQUARE)).max() > 1
        # The whole image stays the whole image, or what is left of it.
        assert result["boxes"][1].min() >= 0
        assert result["boxes"][1].max() <= 1
    # Both directions.
    assert len({result["boxes"][0].tobytes() for result in found}) == 2


def test_colours_move_no_boxes(monkeypatch):
    result = distorted(monkeypatch, "solarize", 0, SQUARE)
    np.testing.assert_array_equal(
        result["boxes"][0], np.float32(np.array(SQUARE) / [60, 80, 60, 80])
    )


def test_a_box_that_is_moved_out_is_dropped(monkeypatch):
    # 0.225 of 80 columns: 18 of the box's 20 leave the image to one side, none to the other.
    kept = [distorted(monkeypatch, "translate_x", seed, (20, 0, 40, 20)) for seed in range(8)]
    assert {tuple(result["classes"]) for result in kept} == {(6,), (5, 6)}
    for result in kept:
        assert len(result["boxes"]) == len(result["area"]) == len(result["classes"])
        if len(result["classes"]) == 2:
            np.testing.assert_allclose(
                result["boxes"][0] * [60, 80, 60, 80], [20, 18, 40, 38], atol=1e-4
            )


@BOTH
def test_the_same_seed_gives_the_same_image(traced):
    step = "rand_augment { num_layers: 3 magnitude: 9 }"
    images = [augment([step], seed, traced)["image"] for seed in (1, 1, 2, 3, 4)]
    np.testing.assert_array_equal(images[0], images[1])
    assert len({image.tobytes() for image in images}) == 4


def test_all_operations_are_drawn_and_in_both_directions(monkeypatch):
    drawn = []

    def recorded(name):
        return lambda image, level: drawn.append((name, float(level))) or image

    monkeypatch.setattr(rand_augmentation, "OPERATIONS", {name: recorded(name) for name in PIL})
    for seed in range(100):
        rand_augmentation.rand_augment(
            example(), tf.constant([0, seed], tf.int64), num_layers=2, magnitude=5
        )
    assert len(drawn) == 200
    assert {name for name, _ in drawn} == set(PIL)
    assert {level for _, level in drawn} == {-0.5, 0.5}

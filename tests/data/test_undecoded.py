import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from mnasdet.data import augmentation, undecoded
from tests.data.coded_picture import example, step

HEIGHT, WIDTH = 61, 83


def encoded(mode="RGB", image_format="JPEG", **options):
    """A picture of many colours that change from pixel to pixel."""
    random = np.random.RandomState(0)
    coarse = Image.fromarray(random.randint(0, 256, (9, 12, 3)).astype(np.uint8))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)).astype(int)
    noisy = np.clip(smooth + random.randint(-25, 26, smooth.shape), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noisy).convert(mode).save(file, image_format, **options)
    return tf.constant(file.getvalue())


PICTURES = {
    "full colours": encoded(subsampling=0),
    "half the columns": encoded(subsampling=1),
    "half the colours": encoded(subsampling=2),
    "a quarter of the columns": encoded(subsampling="4:1:1"),
    "progressive": encoded(subsampling=2, progressive=True),
    "restart markers": encoded(restart_marker_blocks=2),
    "grey": encoded("L"),
    "CMYK": encoded("CMYK"),
    "PNG": encoded(image_format="PNG"),
}


def decoded(content):
    return tf.io.decode_image(content, channels=3, expand_animations=False)


def whole(content):
    return undecoded.whole(content, tf.constant(HEIGHT), tf.constant(WIDTH))


@pytest.mark.parametrize("name", PICTURES)
def test_a_window_is_that_of_the_whole_picture(name):
    pixels = decoded(PICTURES[name]).numpy()
    random = np.random.RandomState(1)
    for _ in range(40):
        height, width = random.randint(1, [HEIGHT + 1, WIDTH + 1])
        top, left = random.randint(0, [HEIGHT + 1 - height, WIDTH + 1 - width])
        window = undecoded.cut(whole(PICTURES[name]), [top, left], tf.constant([height, width]))
        np.testing.assert_array_equal(
            undecoded.pixels(window), pixels[top : top + height, left : left + width]
        )


def test_mirrored_windows_of_windows():
    pixels = decoded(PICTURES["half the colours"]).numpy()
    image = whole(PICTURES["half the colours"])
    image = undecoded.cut(undecoded.mirror(image, 1), [10, 5], tf.constant([40, 60]))
    assert undecoded.size_of(image).numpy().tolist() == [40, 60]
    expected = pixels[:, ::-1][10:50, 5:65]
    np.testing.assert_array_equal(undecoded.pixels(image), expected)
    image = undecoded.cut(undecoded.mirror(image, 0), [3, 7], tf.constant([20, 33]))
    expected = expected[::-1][3:23, 7:40]
    np.testing.assert_array_equal(undecoded.pixels(image), expected)
    image = undecoded.mirror(image, 1)
    np.testing.assert_array_equal(undecoded.pixels(image), expected[:, ::-1])


# Two of the default's seven, as each is traced.
SSD_CROP = """ssd_random_crop {
  operations { min_object_covered: 0.1 min_aspect_ratio: 0.5 max_aspect_ratio: 2 min_area: 0.1
               max_area: 1 overlap_thresh: 0.1 random_coef: 0.3 }
  operations { min_object_covered: 0.9 min_aspect_ratio: 0.5 max_aspect_ratio: 2 min_area: 0.1
               max_area: 1 overlap_thresh: 0.9 }
}"""
STEPS = [
    ["random_horizontal_flip {}", "random_vertical_flip {}", SSD_CROP],
    ["random_jitter_boxes {}", "random_crop_to_aspect_ratio {}", "random_adjust_contrast {}"],
    ["random_crop_image { random_coef: 0.5 }", "random_rotation90 {}", "random_crop_image {}"],
    [
        SSD_CROP.replace("ssd_random_crop", "ssd_random_crop_fixed_aspect_ratio").replace(
            "min_aspect_ratio: 0.5 max_aspect_ratio: 2", ""
        ),
        "random_crop_pad_image {}",
    ],
    ["random_vertical_flip {}", "random_square_crop_by_scale { max_border: 16 }"],
    ["random_crop_image {}", "random_scale_crop_and_pad_to_square { output_size: 48 }"],
]


@pytest.mark.parametrize(
    ("name", "texts"), [("PNG", STEPS[0]), *(("half the colours", texts) for texts in STEPS)]
)
def test_augmentations_see_the_same_pixels(name, texts):
    steps = [step(text) for text in texts]
    assert augmentation.crops_first(steps)
    content = PICTURES[name]

    def augmented(make):
        seeds = tf.data.Dataset.from_tensor_slices(np.array([[7, i] for i in range(8)]))
        dataset = seeds.map(
            lambda seed: augmentation.augment(example(image=make(content)), steps, seed)
        )
        return dataset.as_numpy_iterator()

    for early, late in zip(augmented(decoded), augmented(whole), strict=True):
        assert early.keys() == late.keys()
        for key in early:
            np.testing.assert_array_equal(early[key], late[key], err_msg=key)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], False),
        (["random_horizontal_flip {}"], False),
        (["random_adjust_hue {}", "ssd_random_crop {}"], False),
        (["random_horizontal_flip {}", "ssd_random_crop {}"], True),
    ],
)
def test_what_is_decoded_later(texts, expected):
    assert augmentation.crops_first([step(text) for text in texts]) == expected

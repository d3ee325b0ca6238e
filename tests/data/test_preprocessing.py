import functools

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.data import preprocessing
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.protos import image_resizer_pb2


@pytest.mark.parametrize("method", list(image_resizer_pb2.ResizeType.values()))
def test_preprocess(method):
    # A constant image stays constant under every method; 255 is 1, 0 is -1.
    for value, expected in ((255, 1.0), (0, -1.0), (51, -0.6)):
        image = tf.fill([10, 20, 3], tf.constant(value, tf.uint8))
        resizer = ImageResizer((4, 6), resize_method=method)
        result, extent = preprocessing.preprocess(image, resizer)
        assert result.dtype == tf.float32
        np.testing.assert_allclose(result, np.full((4, 6, 3), expected), atol=1e-5)
        assert extent.numpy().tolist() == [1, 1]


def test_preprocess_bilinear_by_hand():
    image = np.repeat(np.array([[0, 100, 200, 40]], np.uint8)[..., None], 3, -1)
    result, _ = preprocessing.preprocess(tf.constant(image), ImageResizer((1, 2)))
    # Half-pixel centres: the middle of each pair.
    np.testing.assert_allclose(result[0, :, 0], np.array([50, 120]) * 2 / 255 - 1, atol=1e-6)


def test_preprocess_bicubic_stays_in_range():
    image = tf.constant(np.random.RandomState(0).choice([0, 255], (9, 9, 3)).astype(np.uint8))
    resizer = ImageResizer((20, 20), resize_method=image_resizer_pb2.BICUBIC)
    result, _ = preprocessing.preprocess(image, resizer)
    assert result.numpy().min() >= -1
    assert result.numpy().max() <= 1


@pytest.mark.parametrize(
    ("image_size", "min_dimension", "largest", "expected"),
    [
        ((30, 40), 60, 100, (60, 80)),  # The shorter side decides.
        ((40, 30), 60, 100, (80, 60)),
        ((30, 90), 60, 100, (33, 100)),  # The longer one would become 180.
        ((90, 30), 60, 100, (100, 33)),
        ((50, 50), 60, 100, (60, 60)),
        ((640, 480), 64, 64, (64, 48)),
        ((2, 1000), 64, 64, (1, 64)),  # Never less than a pixel.
    ],
)
@pytest.mark.parametrize("traced", [False, True])
def test_keeping_the_aspect_ratio(image_size, min_dimension, largest, expected, traced):
    resizer = ImageResizer((largest, largest), min_dimension, pad_color=(255, 0, 51))
    image = tf.fill([*image_size, 3], tf.constant(102, tf.uint8))
    preprocess = preprocessing.preprocess
    if traced:
        spec = tf.TensorSpec([None, None, 3], tf.uint8)
        preprocess = tf.function(lambda x: preprocessing.preprocess(x, resizer), [spec])
        result, extent = preprocess(image)
    else:
        result, extent = preprocess(image, resizer)
    height, width = expected
    np.testing.assert_allclose(extent, [height / largest, width / largest], atol=1e-6)
    assert result.shape == (largest, largest, 3)
    np.testing.assert_allclose(result[:height, :width], -0.2, atol=1e-5)
    padding = np.ones((largest, largest), bool)
    padding[:height, :width] = False
    np.testing.assert_allclose(result.numpy()[padding], [[1, -1, -0.6]] * padding.sum(), atol=1e-5)


def test_a_batch_keeps_its_aspect_ratio():
    images = tf.constant(np.arange(2 * 4 * 8 * 3).reshape(2, 4, 8, 3), tf.uint8)
    resizer = ImageResizer((8, 8), min_dimension=8)
    result, extent = preprocessing.preprocess(images, resizer)
    assert extent.numpy().tolist() == [0.5, 1]
    np.testing.assert_allclose(result[:, :4], images.numpy() * 2.0 / 255 - 1, atol=1e-6)
    assert (result.numpy()[:, 4:] == -1).all()


def test_grayscale():
    image = tf.constant([[[10, 200, 30], [255, 255, 255]]], tf.uint8)
    result, _ = preprocessing.preprocess(image, ImageResizer((1, 2), grayscale=True))
    luminance = 0.2989 * 10 + 0.587 * 200 + 0.114 * 30
    np.testing.assert_allclose(result[0, 0], [luminance * 2 / 255 - 1] * 3, atol=1e-5)
    np.testing.assert_allclose(result[0, 1], [1] * 3, atol=1e-3)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(
    ("size", "fraction", "window"),
    [
        # (top, left, bottom, right) of an image of 200 rows and 300 columns.
        ((100, 100), 1.0, (0, 50, 200, 250)),
        ((100, 100), 0.5, (50, 100, 150, 200)),
        ((50, 100), 1.0, (25, 0, 175, 300)),
        ((224, 224), 0.875, (12, 62, 187, 237)),
    ],
)
def test_the_centre_of_an_image(size, fraction, window, traced):
    rows, columns = np.mgrid[0:200, 0:300]
    image = np.stack([rows, columns // 2, columns % 2], -1).astype(np.uint8)
    resizer = ImageResizer(size, crop_fraction=fraction)
    preprocess = functools.partial(preprocessing.preprocess, resizer=resizer)
    if traced:
        spec = tf.TensorSpec([None, None, 3], tf.uint8)
        preprocess = tf.function(preprocess, input_signature=[spec])
    result, extent = preprocess(tf.constant(image))
    top, left, bottom, right = window
    expected, _ = preprocessing.preprocess(
        tf.constant(image[top:bottom, left:right]), ImageResizer(size)
    )
    np.testing.assert_allclose(result, expected, atol=1e-6)
    np.testing.assert_array_equal(extent, [1, 1])

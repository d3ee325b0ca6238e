"""A picture whose pixels say where they were, for the tests of the augmentations."""

import functools

import numpy as np
import tensorflow as tf
from google.protobuf import text_format

from mnasdet.data import augmentation
from mnasdet.protos import preprocessor_pb2

HEIGHT, WIDTH = 60, 80


def example(**changes):
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
        **changes,
    }


def box_pixels(number):
    """The box of class `number` in pixels."""
    return example()["boxes"].numpy()[number - 1] * ([HEIGHT, WIDTH] * 2)


def step(text):
    return text_format.Parse(text, preprocessor_pb2.PreprocessingStep())


def augment(texts, seed, traced=False, **changes):
    """The example after the steps as numpy, eager or from a graph."""
    return run(_steps(*texts), seed, traced, **changes)


def run(function, seed, traced=False, **changes):
    """Calls a function with the example and a seed, and returns the result as numpy."""
    function = _traced(function) if traced else function
    result = function(example(**changes), tf.constant([7, seed], tf.int64))
    return {key: value.numpy() for key, value in result.items()}


@functools.cache
def _steps(*texts):
    steps = [step(text) for text in texts]
    return lambda x, seed: augmentation.augment(x, steps, seed)


@functools.cache
def _traced(function):
    return tf.function(function, autograph=False)


def window_of(image):
    """(ymin, xmin, ymax, xmax) of a crop, read off its pixels."""
    return image[0, 0, 0], image[0, 0, 1], image[-1, -1, 0] + 1, image[-1, -1, 1] + 1

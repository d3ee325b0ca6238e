"""Box coding by hand, eager and inside tf.data."""

import numpy as np
import tensorflow as tf

from mnasdet.detectors import box_coder

ANCHORS = np.array([[0.0, 0.0, 0.4, 0.2], [0.1, 0.1, 0.3, 0.3]], np.float32)
BOXES = np.array([[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.3, 0.3]], np.float32)


def test_by_hand():
    codes = box_coder.encode(BOXES, ANCHORS, (10, 10, 5, 5))
    # Centres (0.3, 0.3) and (0.2, 0.1), sizes (0.4, 0.4) and (0.4, 0.2).
    expected = [[10 * 0.1 / 0.4, 10 * 0.2 / 0.2, 0, 5 * np.log(2)], [0, 0, 0, 0]]
    np.testing.assert_allclose(codes, expected, atol=1e-5)


def test_decoding_undoes_encoding_in_tf_data_too():
    codes = box_coder.encode(BOXES, ANCHORS, (10, 10, 5, 5))
    dataset = tf.data.Dataset.from_tensors(codes)
    (boxes,) = dataset.map(lambda c: box_coder.decode(c, ANCHORS, (10, 10, 5, 5)))
    np.testing.assert_allclose(boxes, BOXES, atol=1e-6)


def test_an_empty_box_has_a_finite_code():
    code = box_coder.encode(tf.zeros([1, 4]), ANCHORS[:1], (10, 10, 5, 5))
    assert np.isfinite(code).all()

"""mnasdet/training/clustering.py, on kernels of which every weight is known."""

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.training.clustering import Clusters

NAME = "conv/kernel"


@pytest.fixture
def kernel():
    weights = np.float32([-1.1, -0.9, 0.1, 0.2, 0.9, 1.0]).reshape(1, 1, 2, 3)
    return tf.Variable(weights, name=NAME)


@pytest.fixture
def clusters(kernel):
    """With the values 1, -1 and 0, in this order."""
    made = Clusters([kernel], 3)
    made.centroids[NAME].assign([1.0, -1.0, 0.0])
    made.apply()
    return made


def test_a_weight_has_the_value_nearest_to_it(kernel, clusters):
    np.testing.assert_array_equal(kernel.numpy().ravel(), [-1, -1, 0, 0, 1, 1])
    clusters.originals[NAME].assign_add(np.full(kernel.shape, 0.4, np.float32))
    clusters.apply()
    # -0.7, -0.5 (halfway), 0.5, 0.6, 1.3, 1.4
    np.testing.assert_array_equal(kernel.numpy().ravel()[[0, 3, 4, 5]], [-1, 1, 1, 1])


def test_values_move_by_the_mean_gradient_of_their_weights(kernel, clusters):
    other = tf.Variable([1.0, 2.0], name="conv/bias")
    gradient = np.float32([1, 3, 10, 20, -4, -6]).reshape(1, 1, 2, 3)
    updates = clusters.updates([(kernel, tf.constant(gradient)), (other, tf.constant([5.0, 6.0]))])
    by_variable = {variable.ref(): value for variable, value in updates}
    np.testing.assert_allclose(by_variable[clusters.centroids[NAME].ref()], [-5, 2, 15])
    np.testing.assert_allclose(by_variable[clusters.originals[NAME].ref()], gradient)
    np.testing.assert_array_equal(by_variable[other.ref()], [5, 6])
    trained = clusters.trained([kernel, other])
    assert [v.ref() for v in trained] == [variable.ref() for variable, _ in updates]


def test_a_fresh_kernel_has_as_many_values_as_asked_for_and_is_close():
    weights = np.random.default_rng(0).normal(size=(3, 3, 8, 16)).astype(np.float32)
    kernel = tf.Variable(weights, name=NAME)
    depthwise = tf.Variable(weights[..., :1], name="depthwise/depthwise_kernel")
    small = tf.Variable(weights[:1, :1, :2, :4], name="small/kernel")
    Clusters([kernel, depthwise, small], 8)
    assert len(np.unique(kernel)) == 8
    assert np.mean((kernel - weights) ** 2) < 0.15 * np.var(weights)
    # Others, and what has no more than eight weights, stay.
    np.testing.assert_array_equal(depthwise, weights[..., :1])
    np.testing.assert_array_equal(small, weights[:1, :1, :2, :4])

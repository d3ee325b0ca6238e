"""mnasdet/training/pruning.py, on kernels of which every weight is known."""

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.training.pruning import Pruner


def variable(name, values, shape):
    return tf.Variable(np.reshape(values, shape).astype(np.float32), name=name)


@pytest.fixture
def variables():
    return [
        # 20 weights, the smaller the later, signs alternating.
        variable("a/conv/kernel", [(-1) ** i * (20 - i) for i in range(20)], (1, 1, 4, 5)),
        variable("a/depthwise/depthwise_kernel", np.linspace(0.1, 0.9, 9), (3, 3, 1, 1)),
        variable("a/conv/bias", [0.1, 0.2, 0.3, 0.4, 0.5], (5,)),
    ]


def zeros(kernel):
    return int(np.sum(kernel.numpy() == 0))


def test_the_share_of_zeros_follows_the_schedule(variables):
    kernel, depthwise, bias = variables
    before = kernel.numpy().ravel()
    step = tf.Variable(0, dtype=tf.int64)
    pruner = Pruner(variables, step, final_sparsity=0.8, begin_step=2, end_step=6, frequency=2)
    found = []
    for number in range(1, 9):
        step.assign(number)
        pruner.apply({})
        found.append(zeros(kernel))
    # At step 4: 0.8 - 0.8 * (1 - 1/2)^3 = 0.7 of 20; from step 6 on 0.8 of them.
    assert found == [0, 0, 0, 14, 14, 16, 16, 16]
    # The largest are kept as they were.
    np.testing.assert_array_equal(kernel.numpy().ravel(), [*before[:4], *[0] * 16])
    assert zeros(depthwise) == zeros(bias) == 0


def test_pruned_weights_stay_zero_whatever_an_update_does(variables):
    kernel = variables[0]
    step = tf.Variable(1, dtype=tf.int64)
    pruner = Pruner(variables, step, final_sparsity=0.5, begin_step=0, end_step=1, frequency=1)
    average = tf.Variable(tf.ones_like(kernel))
    pruner.apply({})
    kernel.assign_add(tf.ones_like(kernel))
    step.assign(2)
    pruner.apply({"a/conv/kernel": average})
    np.testing.assert_array_equal(kernel.numpy().ravel()[10:], np.zeros(10))
    assert np.all(kernel.numpy().ravel()[:10] != 0)
    # Nor do their averages remember them.
    np.testing.assert_array_equal(average.numpy().ravel(), [1] * 10 + [0] * 10)


def test_the_first_sparsity_holds_from_the_first_step_on(variables):
    step = tf.Variable(3, dtype=tf.int64)
    pruner = Pruner(
        variables,
        step,
        initial_sparsity=0.25,
        final_sparsity=0.5,
        begin_step=3,
        end_step=5,
        frequency=1,
    )
    pruner.apply({})
    assert zeros(variables[0]) == 5

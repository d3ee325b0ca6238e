"""Random numbers of a network in training."""

import numpy as np
import pytest
import tensorflow as tf

from mnasdet.networks import layers, random_draws

SEED, OTHER = tf.constant([0, 5], tf.int64), tf.constant([0, 6], tf.int64)
ONES = tf.ones([20, 10, 10, 3])


def two_draws(seed):
    with random_draws.seeded(seed):
        return [random_draws.uniform((1000,)).numpy() for _ in range(2)]


def test_draws_are_a_function_of_the_seed_and_of_their_order():
    first, second = two_draws(SEED)
    assert (first != second).all()
    np.testing.assert_array_equal(two_draws(SEED), [first, second])
    assert (two_draws(OTHER)[0] != first).any()
    for draw in (first, second):
        assert 0 <= draw.min() < 0.01 < 0.99 < draw.max() < 1
    np.testing.assert_allclose(np.mean([first, second]), 0.5, atol=0.05)


def test_draws_are_no_augmentation_of_the_same_example():
    augmentations = [tf.random.experimental.stateless_fold_in(SEED, i) for i in range(20)]
    used = [tf.random.stateless_uniform([1000], seed).numpy() for seed in (SEED, *augmentations)]
    for draw in two_draws(SEED):
        assert all((draw != other).any() for other in used)


def test_without_a_seed_they_are_tensorflow_s_own():
    with random_draws.seeded(SEED), random_draws.seeded(None):
        first, second = (random_draws.uniform((10,)).numpy() for _ in range(2))
    assert (first != second).any()


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize(
    "layer", [layers.Dropout(0.25), layers.DropBlock(0.75, 3)], ids=["dropout", "drop_block"]
)
def test_layers_drop_by_the_seed(layer, jit_compile):
    """One trace serves all steps."""

    @tf.function(jit_compile=jit_compile, autograph=False)
    def call(seed):
        with random_draws.seeded(seed):
            return layer(ONES, training=True)

    first, again, other = (call(seed).numpy() for seed in (SEED, SEED, OTHER))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert abs(np.mean(first == 0) - 0.25) < 0.1
    np.testing.assert_allclose(first.mean(), 1, atol=0.1)
    np.testing.assert_array_equal(layer(ONES, training=False), ONES)


def test_what_dropout_keeps_is_scaled():
    values = np.unique(layers.Dropout(0.2)(ONES, training=True))
    np.testing.assert_allclose(values, [0, 1.25])


def test_what_an_example_draws_depends_on_its_own_seed_alone():
    def draws(*seeds):
        # The seed of the pass is that of its first example.
        with random_draws.seeded(seeds[0]):
            random_draws.uniform((3,))
            return random_draws.uniform_of_each(tf.stack(seeds), (len(seeds), 1000)).numpy()

    both = draws(SEED, OTHER)
    np.testing.assert_array_equal(draws(OTHER, SEED), both[::-1])
    np.testing.assert_array_equal(draws(OTHER), both[1:])
    assert (both[0] != both[1]).any()
    np.testing.assert_allclose(both.mean(1), 0.5, atol=0.05)
    assert random_draws.uniform_of_each(None, (2, 5)).shape == (2, 5)

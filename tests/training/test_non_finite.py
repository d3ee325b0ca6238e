"""Finding the first tensor of a step that is not finite."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from mnasdet.tasks import Loss
from mnasdet.training import non_finite


def network():
    """first, then root (which is not finite for negative numbers), and last, of one weight each."""
    inputs = tf_keras.Input((1,))
    x = layers.Dense(1, use_bias=False, kernel_initializer="ones", name="first")(inputs)
    x = layers.Activation(tf.sqrt, name="root")(x)
    x = layers.Dense(1, use_bias=False, kernel_initializer="ones", name="last")(x)
    return tf_keras.Model(inputs, x)


def first_tensor(model, value, scale=1.0):
    batch = {"image": tf.constant([[1.0], [value]]), "class": tf.constant([1, 2])}

    def losses(batch):
        output = model(batch["image"], training=True)
        return {"some_loss": Loss(tf.reduce_sum(output) * scale, 2.0)}

    return non_finite.first_tensor(model, losses, model.trainable_variables, batch)


@pytest.mark.parametrize(
    ("value", "scale", "weight", "expected"),
    [
        (4.0, 1.0, None, ""),
        (np.nan, 1.0, None, "the input image"),
        (-4.0, 1.0, None, "the output of root"),
        (4.0, 1.0, "last", "the weight last/kernel"),
        (4.0, np.inf, None, "the some_loss"),
        # The root of 0 is 0, and its slope is infinite: `last` has a gradient, `first` has none.
        (0.0, 1.0, None, "the gradient of first/kernel"),
    ],
)
def test_the_first_of_them_is_named(value, scale, weight, expected):
    model = network()
    if weight:
        model.get_layer(weight).kernel.assign([[np.inf]])
    assert first_tensor(model, value, scale) == expected


def test_the_regularization_may_be_it():
    model = network()
    model.add_loss(lambda: tf.constant(np.nan))
    assert first_tensor(model, 4.0) == "the regularization_loss"


def test_the_network_is_left_as_it_was():
    model = network()
    first_tensor(model, -4.0)
    assert all("call" not in vars(layer) for layer in model.layers)
    np.testing.assert_allclose(model(tf.constant([[9.0]])), [[3.0]])

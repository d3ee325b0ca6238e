"""Supernets as Keras models."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from mnasdet.networks import random_draws
from mnasdet.networks.builder import Builder
from mnasdet.networks.choices import Mixing, derive
from mnasdet.networks.graph import Graph, Network
from mnasdet.networks.hyperparams import BatchNorm, Hyperparams, Kernel
from mnasdet.networks.keras_builder import keras_model
from mnasdet.networks.operations import chosen
from mnasdet.operation_names import parse

HYPERPARAMS = Hyperparams(kernel=Kernel(l2=1e-4), normalizer=BatchNorm(momentum=0.9))
OPS = [parse(text) for text in ("ir_k3_e3", "sep_k5_d2", "conv_k3")]
ALPHAS = ["layer_0/choice/alpha", "layer_1/choice/alpha"]


def network():
    b = Builder()
    x = b.input((8, 8, 4))
    for number in range(2):
        with b.scope(f"layer_{number}"):
            x = chosen(b, x, OPS, 4, HYPERPARAMS)
    return Network({"": Graph({"y": x})})


def supernet(*mixing):
    tf_keras.utils.set_random_seed(5)
    return keras_model(network().graphs[""].outputs, mixing=Mixing(*mixing))


@pytest.fixture(scope="module")
def images():
    return tf.random.stateless_normal((4, 8, 8, 4), (1, 2))


def variables(model):
    return {variable.name.removesuffix(":0"): variable for variable in model.variables}


def set_alphas(model, values):
    for name in ALPHAS:
        variables(model)[name].assign(values)


def copied(model, chosen_places):
    """The derived network with the supernet's weights, which it finds by name."""
    derived = derive(network(), {name.removesuffix("/alpha"): chosen_places for name in ALPHAS})
    plain = keras_model(derived.graphs[""].outputs)
    weights = variables(model)
    for name, variable in variables(plain).items():
        variable.assign(weights[name])
    return plain


def test_softmax_adds_up_the_branches():
    tf_keras.utils.set_random_seed(5)
    b = Builder()
    x = b.input((8, 8, 4))
    y = chosen(b, x, OPS, 4, HYPERPARAMS)
    model = keras_model({"y": y}, mixing=Mixing())
    x = tf.random.stateless_normal((2, 8, 8, 4), (1, 2))
    variables(model)["choice/alpha"].assign([0.3, -1.0, 0.5])
    each = []
    for place in range(3):
        derived = derive(Network({"": Graph({"y": y})}), {"choice": place})
        plain = keras_model(derived.graphs[""].outputs)
        for name, variable in variables(plain).items():
            variable.assign(variables(model)[name])
        each.append(plain(x)["y"].numpy())
    weights = np.exp([0.3, -1.0, 0.5]) / np.exp([0.3, -1.0, 0.5]).sum()
    expected = sum(w * y for w, y in zip(weights, each, strict=True))
    np.testing.assert_allclose(model(x)["y"], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["softmax", "gumbel", "uniform"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_sure_choice_computes_as_the_derived_network(images, kind, place):
    model = supernet(kind)
    set_alphas(model, np.where(np.arange(3) == place, 200.0, 0.0))
    expected = copied(model, place)(images)["y"]
    np.testing.assert_allclose(model(images)["y"], expected, atol=1e-6)


def gradients(model, images, function):
    @function
    def step():
        with random_draws.seeded(tf.constant([3, 4])), tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(images, training=True)["y"] ** 2) + sum(model.losses)
        return tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")

    found = step()
    averages = [variable.numpy() for variable in model.variables if not variable.trainable]
    return [gradient.numpy() for gradient in found] + averages


def compiled(step):
    return tf.function(step, jit_compile=True)


@pytest.mark.parametrize("function", [tf.function, compiled], ids=["graph", "xla"])
def test_recomputed_branches_give_the_same_gradients_and_move_averages_once(images, function):
    kept = gradients(supernet("softmax"), images, function)
    again = gradients(supernet("softmax", True), images, function)
    for one, other in zip(kept, again, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5, rtol=1e-4)


def test_xla_computes_recomputed_branches_twice(images):
    def num_normalisations(recompute):
        model = supernet("softmax", recompute)

        @compiled
        def step(images):
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(images, training=True)["y"] ** 2)
            return tape.gradient(loss, model.trainable_variables)

        text = step.experimental_get_compiler_ir(images)(stage="optimized_hlo")
        return text.count(" rsqrt(")

    assert num_normalisations(True) == 2 * num_normalisations(False) > 0


def test_a_drawn_branch_is_a_function_of_the_seed_and_only_it_learns(images):
    first, second = (gradients(supernet("uniform"), images, tf.function) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    names = [variable.name for variable in supernet("uniform").trainable_variables]
    # A kernel's own decay has a gradient in any case; a factor of a normalisation has none.
    learning = {
        name.split("/")[1]
        for name, gradient in zip(names, first, strict=False)
        if name.startswith("layer_0") and name.endswith("gamma:0") and np.any(gradient)
    }
    assert len(learning) == 1


def test_a_drawn_branch_gives_alpha_the_gradient_of_its_probability(images):
    model = supernet("gumbel")
    names = [variable.name.removesuffix(":0") for variable in model.trainable_variables]
    found = dict(zip(names, gradients(model, images, tf.function), strict=False))
    for name in ALPHAS:
        # Softmax' gradient: what one candidate gains the others lose.
        assert abs(found[name].sum()) < 1e-3 * np.abs(found[name]).max()
        assert np.any(found[name])

"""Optimizers against numpy and TensorFlow 1's own, eager and inside tf.function."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from google.protobuf import text_format
from official.modeling.optimization.legacy_adamw import AdamWeightDecay

from mnasdet.protos import optimizer_pb2
from mnasdet.training import optimizers

START = np.array([1.0, -2.0, 0.5])
GRADIENTS = np.array([[0.1, -1.0, 3.0], [0.2, 0.5, -3.0], [0.0, 1e-3, 10.0], [0.3, -0.2, 0.0]])
RATES = [0.1, 0.1, 0.05, 0.01]


@pytest.fixture(params=[False, True], ids=["eager", "tf.function"])
def updated(request):
    """Where an optimizer takes START along GRADIENTS with the learning rates RATES."""

    def run(optimizer, name=None, rates=RATES):
        variable = tf.Variable(START, dtype=tf.float32, name=name)
        optimizer._create_all_weights([variable])

        def update(gradient, rate):
            optimizer.learning_rate.assign(rate)
            optimizer.apply_gradients([(gradient, variable)])

        update = tf.function(update) if request.param else update
        for gradient, rate in zip(GRADIENTS, rates, strict=True):
            update(tf.constant(gradient, tf.float32), tf.constant(rate))
        return variable.numpy()

    return run


def test_sgd_with_momentum(updated):
    x, velocity = START, 0.0
    for gradient, rate in zip(GRADIENTS, RATES, strict=True):
        velocity = 0.9 * velocity - rate * gradient
        x = x + velocity
    np.testing.assert_allclose(updated(optimizers.sgd(0.9)), x, rtol=1e-5)


def numpy_rms_prop(decay, momentum, epsilon):
    """The mean square starts at 1, epsilon is inside the root, the rate inside the momentum."""
    x, mean_square, velocity = START, 1.0, 0.0
    for gradient, rate in zip(GRADIENTS, RATES, strict=True):
        mean_square = decay * mean_square + (1 - decay) * gradient**2
        velocity = momentum * velocity + rate * gradient / np.sqrt(mean_square + epsilon)
        x = x - velocity
    return x


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("epsilon", [1.0, 1e-3])
def test_rms_prop(momentum, epsilon, updated):
    actual = updated(optimizers.RMSProp(0.8, momentum, epsilon))
    np.testing.assert_allclose(actual, numpy_rms_prop(0.8, momentum, epsilon), rtol=1e-5)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_rms_prop_is_that_of_tensorflow_1(momentum, updated):
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variable = tf.compat.v1.get_variable("x", initializer=START.astype(np.float32))
        gradient = tf.compat.v1.placeholder(tf.float32, [3])
        rate = tf.compat.v1.placeholder(tf.float32, [])
        optimizer = tf.compat.v1.train.RMSPropOptimizer(rate, 0.8, momentum, 0.5)
        update = optimizer.apply_gradients([(gradient, variable)])
        session.run(tf.compat.v1.global_variables_initializer())
        for values in zip(GRADIENTS, RATES, strict=True):
            session.run(update, dict(zip((gradient, rate), values, strict=True)))
        expected = session.run(variable)
    np.testing.assert_allclose(updated(optimizers.RMSProp(0.8, momentum, 0.5)), expected, rtol=1e-6)


def test_adam(updated):
    x, mean, square = START, 0.0, 0.0
    for step, (gradient, rate) in enumerate(zip(GRADIENTS, RATES, strict=True), start=1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        corrected = rate * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        x = x - corrected * mean / (np.sqrt(square) + 1e-3)
    np.testing.assert_allclose(updated(optimizers.adam(1e-3)), x, rtol=1e-5)


def decayed_by(step, weight_decay=0.1):
    """Where a kernel goes: `step` gives the update of the gradient alone; the decay comes to it."""
    x, state = START, {}
    for number, (gradient, rate) in enumerate(zip(GRADIENTS, RATES, strict=True), start=1):
        x = x - rate * weight_decay * x - step(state, number, gradient, rate)
    return x


def momentum_step(state, number, gradient, rate):
    state["velocity"] = 0.9 * state.get("velocity", 0.0) + rate * gradient
    return state["velocity"]


def adam_step(state, number, gradient, rate):
    state["mean"] = 0.9 * state.get("mean", 0.0) + 0.1 * gradient
    state["square"] = 0.999 * state.get("square", 0.0) + 0.001 * gradient**2
    corrected = rate * np.sqrt(1 - 0.999**number) / (1 - 0.9**number)
    return corrected * state["mean"] / (np.sqrt(state["square"]) + 1e-3)


@pytest.mark.parametrize("name", ["conv/kernel", "conv/depthwise_kernel"])
def test_weight_decay_is_no_part_of_the_momentum(name, updated):
    actual = updated(optimizers.sgd(0.9, weight_decay=0.1), name)
    np.testing.assert_allclose(actual, decayed_by(momentum_step), rtol=1e-5)


def test_weight_decay_is_not_divided_by_adams_root(updated):
    actual = updated(optimizers.adam(1e-3, weight_decay=0.1), "conv/kernel")
    np.testing.assert_allclose(actual, decayed_by(adam_step), rtol=1e-5)


def test_adamw_is_that_of_tf_keras_and_of_tf_models(updated):
    actual = updated(optimizers.adam(1e-3, weight_decay=0.1), "conv/kernel")
    of_models = AdamWeightDecay(0.0, epsilon=1e-3, weight_decay_rate=0.1, gradient_clip_norm=0)
    np.testing.assert_allclose(actual, updated(of_models, "conv/kernel"), rtol=1e-6)
    of_keras = tf_keras.optimizers.AdamW(weight_decay=0.1, epsilon=1e-3, jit_compile=False)
    variable = tf.Variable(START, dtype=tf.float32)
    for gradient, rate in zip(GRADIENTS, RATES, strict=True):
        of_keras.learning_rate = rate
        of_keras.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
    np.testing.assert_allclose(actual, variable.numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", ["conv/bias", "batch_norm/gamma", "batch_norm/beta"])
@pytest.mark.parametrize("make", [optimizers.sgd, optimizers.adam])
def test_only_kernels_decay(make, name, updated):
    decaying = updated(make(weight_decay=0.1), name)
    np.testing.assert_array_equal(decaying, updated(make(), name))


@pytest.mark.parametrize(
    "make",
    [
        lambda: optimizers.sgd(0.9, weight_decay=0.1),
        lambda: optimizers.adam(1e-3, weight_decay=0.1),
        lambda: optimizers.RMSProp(0.8, 0.9, 1e-3),
    ],
    ids=["sgd", "adam", "rms_prop"],
)
def test_a_factor_is_one_on_the_rate(make, updated):
    """Adam and RMSProp would not notice a factor on the gradient."""

    def slowed(name):
        optimizer = make()
        optimizer.treatments = lambda name: optimizers.Treatment(0.25 if name[0] == "s" else 1.0)
        return updated(optimizer, name)

    quarters = updated(make(), "slow/kernel", [rate / 4 for rate in RATES])
    np.testing.assert_allclose(slowed("slow/kernel"), quarters, rtol=1e-6)
    np.testing.assert_array_equal(slowed("other/kernel"), updated(make(), "other/kernel"))


@pytest.mark.parametrize("first_step", [0, 2])
def test_adam_corrects_from_the_first_update_of_a_variable(first_step, updated):
    """Frozen before, its averages are as fresh as at the start of a training."""
    late = optimizers.adam(1e-3)
    late.treatments = lambda name: optimizers.Treatment(first_step=first_step)
    other = tf.Variable(START, dtype=tf.float32)
    late._create_all_weights([other])
    for _ in range(first_step):
        late.apply_gradients([(tf.ones_like(other), other)])
    x, state = START, {}
    for number, (gradient, rate) in enumerate(zip(GRADIENTS, RATES, strict=True), start=1):
        x = x - adam_step(state, number, gradient, rate)
    np.testing.assert_allclose(updated(late), x, rtol=1e-5)


RATE = "learning_rate { constant_learning_rate { learning_rate: 0.25 } }"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (
            f"momentum_optimizer {{ {RATE} momentum_optimizer_value: 0.5 }}",
            lambda: optimizers.sgd(0.5),
        ),
        (f"momentum_optimizer {{ {RATE} }}", lambda: optimizers.sgd(0.9)),
        (
            f"rms_prop_optimizer {{ {RATE} momentum_optimizer_value: 0.5 decay: 0.7 epsilon: 2 }}",
            lambda: optimizers.RMSProp(0.7, 0.5, 2.0),
        ),
        (f"rms_prop_optimizer {{ {RATE} }}", lambda: optimizers.RMSProp(0.9, 0.9, 1.0)),
        (f"adam_optimizer {{ {RATE} epsilon: 0.5 }}", lambda: optimizers.adam(0.5)),
        (f"adam_optimizer {{ {RATE} }}", lambda: optimizers.adam(1e-8)),
        (
            f"adamw_optimizer {{ {RATE} epsilon: 0.5 weight_decay: 0.2 }}",
            lambda: optimizers.adam(0.5, 0.2),
        ),
        (f"adamw_optimizer {{ {RATE} }}", lambda: optimizers.adam(1e-8, 0.01)),
        (f"momentum_optimizer {{ {RATE} weight_decay: 0.2 }}", lambda: optimizers.sgd(0.9, 0.2)),
    ],
)
def test_from_config(text, same, updated):
    proto = text_format.Parse(text, optimizer_pb2.Optimizer())
    optimizer, schedule = optimizers.from_config(proto)
    assert float(schedule(tf.constant(7, tf.int64))) == 0.25
    actual = updated(optimizer, "conv/kernel")
    np.testing.assert_allclose(actual, updated(same(), "conv/kernel"), rtol=1e-6)

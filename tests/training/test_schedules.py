"""Learning rates by hand, eager and inside tf.function."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet.protos import optimizer_pb2
from mnasdet.training import schedules


def rates(schedule, steps):
    """At `steps`, the same eager and inside tf.function."""
    eager = [float(schedule(tf.constant(step, tf.int64))) for step in steps]
    traced = tf.function(schedule)
    np.testing.assert_allclose([traced(tf.constant(s, tf.int64)) for s in steps], eager, rtol=1e-6)
    return eager


def test_constant():
    assert rates(schedules.constant(0.5), [0, 10]) == [0.5, 0.5]


def test_manual_steps():
    schedule = schedules.manual_steps(0.5, [10, 20], [0.25, 0.125])
    assert rates(schedule, [0, 9, 10, 19, 20, 99]) == [0.5, 0.5, 0.25, 0.25, 0.125, 0.125]


def test_manual_steps_with_warmup():
    schedule = schedules.manual_steps(0.0, [10, 20], [1.0, 0.5], warmup=True)
    np.testing.assert_allclose(rates(schedule, [0, 5, 10, 20]), [0.0, 0.5, 1.0, 0.5])


def test_cosine_with_warmup_and_hold():
    schedule = schedules.cosine_decay(
        2.0, total_steps=110, warmup_rate=1.0, warmup_steps=5, hold_steps=5
    )
    expected = [1.0, 1.8, 2.0, 2.0, 1.0, 0.0, 0.0]
    np.testing.assert_allclose(rates(schedule, [0, 4, 5, 10, 60, 110, 200]), expected, atol=1e-6)


def test_a_cosine_ends_at_a_rate_and_stays_there():
    """SM-NAS, section 4.1.2: from 0.24 to 0.0001."""
    schedule = schedules.cosine_decay(0.24, total_steps=90, minimum=1e-4)
    # A third of the way has cos 60° = 1/2.
    expected = [0.24, 1e-4 + (0.24 - 1e-4) * 0.75, 1e-4 + (0.24 - 1e-4) / 2, 1e-4, 1e-4]
    np.testing.assert_allclose(rates(schedule, [0, 30, 45, 90, 200]), expected, rtol=1e-5)


def test_exponential_decay_in_a_staircase():
    schedule = schedules.exponential_decay(0.5, 10, 0.5)
    assert rates(schedule, [0, 9, 10, 19, 20, 30]) == [0.5, 0.5, 0.25, 0.25, 0.125, 0.0625]


def test_exponential_decay_changes_at_exact_steps_far_out():
    schedule = schedules.exponential_decay(1.0, 800_720, 0.5)
    steps = [800_719, 800_720, 25 * 800_720 - 1, 25 * 800_720]
    assert rates(schedule, steps) == [1.0, 0.5, 0.5**24, 0.5**25]


def test_smooth_exponential_decay_with_a_floor():
    schedule = schedules.exponential_decay(0.4, 10, 0.25, staircase=False, minimum=0.03)
    expected = [0.4, 0.2, 0.1, 0.05, 0.03, 0.03]
    np.testing.assert_allclose(rates(schedule, [0, 5, 10, 15, 20, 900]), expected, rtol=1e-6)


def test_exponential_decay_behind_a_burn_in():
    schedule = schedules.exponential_decay(0.5, 10, 0.5, burnin_rate=0.125, burnin_steps=5)
    assert rates(schedule, [0, 4, 5, 14, 15]) == [0.125, 0.125, 0.5, 0.5, 0.25]
    # Without a rate of its own, the burn-in only puts the decay off.
    schedule = schedules.exponential_decay(0.5, 10, 0.5, staircase=False, burnin_steps=5)
    np.testing.assert_allclose(rates(schedule, [0, 4, 5, 15]), [0.5, 0.5, 0.5, 0.25])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("constant_learning_rate { learning_rate: 0.5 }", {0: 0.5, 99: 0.5}),
        (
            """exponential_decay_learning_rate {
              initial_learning_rate: 0.004 decay_steps: 100 decay_factor: 0.95
            }""",
            {99: 0.004, 100: 0.0038, 250: 0.004 * 0.95**2},
        ),
        (
            """exponential_decay_learning_rate {
              initial_learning_rate: 1 decay_steps: 100 decay_factor: 0.25 staircase: false
              burnin_learning_rate: 0.5 burnin_steps: 10 min_learning_rate: 0.3
            }""",
            {9: 0.5, 10: 1.0, 60: 0.5, 110: 0.3},
        ),
        (
            """manual_step_learning_rate {
              initial_learning_rate: 0 schedule { step: 10 learning_rate: 1 } warmup: true
            }""",
            {5: 0.5, 10: 1.0},
        ),
        (
            """cosine_decay_learning_rate {
              learning_rate_base: 2 total_steps: 110 warmup_learning_rate: 1 warmup_steps: 5
              hold_base_rate_steps: 5
            }""",
            {0: 1.0, 7: 2.0, 60: 1.0, 110: 0.0},
        ),
        (
            """cosine_decay_learning_rate {
              learning_rate_base: 2 total_steps: 100 warmup_steps: 0 min_learning_rate: 1
            }""",
            {0: 2.0, 50: 1.5, 100: 1.0, 101: 1.0},
        ),
    ],
)
def test_from_config(text, expected):
    schedule = schedules.from_config(text_format.Parse(text, optimizer_pb2.LearningRate()))
    np.testing.assert_allclose(rates(schedule, expected), list(expected.values()), atol=1e-7)


def test_exponential_decay_after_a_warm_up():
    """MnasNet's, section 5, with epochs of 10 steps: from 0 to 0.256 in 5 epochs, then times
    0.97 every 2.4 epochs."""
    schedule = schedules.from_config(
        text_format.Parse(
            "exponential_decay_learning_rate { initial_learning_rate: 0.256 decay_steps: 24 "
            "decay_factor: 0.97 warmup_steps: 50 }",
            optimizer_pb2.LearningRate(),
        )
    )
    expected = [0, 0.0512, 0.256, 0.256, 0.256 * 0.97, 0.256 * 0.97**10]
    np.testing.assert_allclose(rates(schedule, [0, 10, 50, 73, 74, 290]), expected, rtol=1e-5)

"""Learning rates by hand."""

import numpy as np
import tensorflow as tf

from mnasdet.training import schedules


def rates(schedule, steps):
    return [float(schedule(tf.constant(step, tf.int64))) for step in steps]


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

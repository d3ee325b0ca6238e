"""Recipes at another length."""

import pytest
from google.protobuf import text_format

from mnasdet.protos import train_pb2
from mnasdet.search.frontier.longer_training import stretched


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant_learning_rate { learning_rate: 0.1 }", {"learning_rate": 0.1}),
        (
            "cosine_decay_learning_rate {"
            " total_steps: 100 warmup_steps: 10 hold_base_rate_steps: 5 }",
            {"total_steps": 250, "warmup_steps": 25, "hold_base_rate_steps": 12},
        ),
        # Defaults count: 4 000 000 and 10 000 steps.
        ("cosine_decay_learning_rate {}", {"total_steps": 10_000_000, "warmup_steps": 25_000}),
        (
            "exponential_decay_learning_rate { decay_steps: 40 burnin_steps: 4 decay_factor: 0.5 }",
            {"decay_steps": 100, "burnin_steps": 10, "decay_factor": 0.5},
        ),
    ],
)
def test_schedules_keep_their_shares(schedule, expected):
    text = f"num_steps: 100 optimizer {{ momentum_optimizer {{ learning_rate {{ {schedule} }} }} }}"
    config = text_format.Parse(text, train_pb2.TrainConfig())
    longer = stretched(config, 250)
    assert (config.num_steps, longer.num_steps) == (100, 250)
    rate = longer.optimizer.momentum_optimizer.learning_rate
    found = getattr(rate, rate.WhichOneof("learning_rate"))
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected)


def test_drops_move():
    config = train_pb2.TrainConfig(num_steps=10)
    rate = config.optimizer.adam_optimizer.learning_rate.manual_step_learning_rate
    rate.schedule.add(step=4, learning_rate=0.1)
    rate.schedule.add(step=8, learning_rate=0.01)
    longer = stretched(config, 30).optimizer.adam_optimizer.learning_rate
    drops = longer.manual_step_learning_rate.schedule
    assert [drop.step for drop in drops] == [12, 24]
    assert [drop.learning_rate for drop in drops] == pytest.approx([0.1, 0.01])


def test_what_is_frozen_first_keeps_its_share():
    config = train_pb2.TrainConfig(num_steps=10)
    assert not stretched(config, 30).HasField("freeze_until")
    config.freeze_until.step = 4
    assert stretched(config, 30).freeze_until.step == 12


def test_no_step_is_too_large_for_its_field():
    config = train_pb2.TrainConfig(num_steps=1)
    rate = config.optimizer.momentum_optimizer.learning_rate
    rate.cosine_decay_learning_rate.SetInParent()
    longer = stretched(config, 10_000).optimizer.momentum_optimizer.learning_rate
    assert longer.cosine_decay_learning_rate.total_steps == 2**32 - 1


def test_a_recipe_without_a_schedule():
    assert stretched(train_pb2.TrainConfig(num_steps=5), 10).num_steps == 10
    bare = train_pb2.TrainConfig(num_steps=5)
    bare.optimizer.momentum_optimizer.SetInParent()
    assert stretched(bare, 10).num_steps == 10

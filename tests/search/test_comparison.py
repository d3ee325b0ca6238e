"""Two searches side by side, with figures by hand."""

import pytest

from mnasdet.evaluation.coco import MAP
from mnasdet.search.comparison import compare
from mnasdet.search.trials.trial_store import Trial, TrialState


def complete(number, accuracy, cost, key=None, **fields):
    return Trial(
        number=number,
        tokens=(),
        architecture="",
        key=key or f"key {number}",
        seed=0,
        state=TrialState.COMPLETE,
        metrics={MAP: accuracy},
        accuracy=accuracy,
        cost=cost,
        reward=accuracy / 2,
        **fields,
    )


def test_by_hand():
    first = [complete(0, 0.2, 20.0), complete(1, 0.1, 10.0), complete(2, 0.4, 40.0, key="slow")]
    second = [
        complete(0, 0.3, 30.0, key="key 1"),
        complete(1, 0.3, 30.0, key="key 1", duplicate_of=0),
        Trial(2, (), "", "large", 0, state=TrialState.REJECTED, error="too large"),
        Trial(3, (), "", "broken", 0, state=TrialState.FAILED, error="nan"),
        Trial(4, (), "", "next", 0),
    ]
    result = compare([first, second])
    assert result["reference"] == {"accuracy": 0.0, "cost": 40.0}
    assert result["shared_architectures"] == 1
    one, other = result["searches"]
    # 0.1 from 10 ms and another 0.1 from 20 ms on; the slowest, at the reference, adds nothing.
    assert one.pop("hypervolume") == pytest.approx(0.1 * 30 + 0.1 * 20)
    assert other.pop("hypervolume") == pytest.approx(0.3 * 10)
    assert one == {
        "trials": 3,
        "pending": 0,
        "running": 0,
        "complete": 3,
        "failed": 0,
        "rejected": 0,
        "duplicates": 0,
        "architectures": 3,
        "best_reward": 0.2,
        "best_accuracy": 0.4,
        "best_reward_after": {},
    }
    assert other == {
        "trials": 5,
        "pending": 1,
        "running": 0,
        "complete": 2,
        "failed": 1,
        "rejected": 1,
        "duplicates": 1,
        "architectures": 4,
        "best_reward": 0.15,
        "best_accuracy": 0.3,
        "best_reward_after": {},
    }


def test_best_reward_after_some_trials():
    rising = [complete(number, number / 1000, 1.0) for number in range(200)]
    failed = [Trial(number, (), "", "", 0, state=TrialState.FAILED) for number in range(19)]
    one, other = compare([rising, [*failed, complete(19, 0.5, 1.0)]])["searches"]
    assert one["best_reward_after"] == {
        "10": 0.0045,
        "20": 0.0095,
        "50": 0.0245,
        "100": 0.0495,
        "200": 0.0995,
    }
    assert other["best_reward_after"] == {
        "10": None,
        "20": 0.25,
        "50": None,
        "100": None,
        "200": None,
    }


def test_nothing_to_compare():
    result = compare([[], [Trial(0, (), "", "k", 0, state=TrialState.FAILED, cost=5.0)]])
    assert result["reference"] == {"accuracy": 0.0, "cost": 0.0}
    assert result["shared_architectures"] == 0
    for search in result["searches"]:
        assert search["best_accuracy"] is None
        assert search["hypervolume"] == 0.0

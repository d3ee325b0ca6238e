import pytest

from mnasdet.reporting import latency_check
from mnasdet.reporting.latency_check import Latency
from mnasdet.search.trials.trial_store import Trial

LATENCIES = [Latency(3, 11.0, 10.0), Latency(5, 19.0, 20.0), Latency(8, 18.0, 24.0)]


def test_errors_by_hand():
    assert [latency.error for latency in LATENCIES] == pytest.approx([0.1, -0.05, -0.25])


def test_gist():
    # Trials 5 and 8 are in the wrong order.
    assert latency_check.gist(LATENCIES) == (
        "The prediction is off by 13.3% on average and by 25.0% at most (trial 8). "
        "It puts 2 of 3 pairs in their true order."
    )
    assert latency_check.gist(LATENCIES[:1]) == (
        "The prediction is off by 10.0% on average and by 10.0% at most (trial 3)."
    )


def test_only_measured_trials_count():
    trials = [Trial(n, (), "", "", 0, cost=10.0 + n) for n in range(3)]
    assert latency_check.latencies(trials, {1: 12.0, 7: 3.0}) == {1: Latency(1, 11.0, 12.0)}
    assert latency_check.latencies(trials, None) == latency_check.latencies(trials, {}) == {}


def test_nothing_measured():
    assert latency_check.section([]) == ""

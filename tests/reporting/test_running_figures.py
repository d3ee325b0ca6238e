import time

import numpy as np

from mnasdet import config
from mnasdet.reporting.running_figures import RunningFigures
from mnasdet.search.trials.trial_store import Trial, TrialState
from tests.search_spaces.architectures import mnasfpn_space


def complete(number, accuracy, cost, reward, tokens=(), **changes):
    state = {"state": TrialState.COMPLETE, "accuracy": accuracy}
    return Trial(number, tokens, "", "", 0, cost=cost, reward=reward, **(state | changes))


def test_hypervolume_by_hand():
    figures = RunningFigures()
    volumes = []
    for number, (accuracy, cost) in enumerate([(0.2, 10), (0.1, 20), (0.3, 15), (0.2, 10)]):
        figures.add(complete(number, accuracy, cost, 0.1))
        volumes.append(round(figures.scalars()["hypervolume"], 6))
    # The first trial is the slowest of its time. Then, out to 20 ms: 0.2 * 10, and 0.1 * 5 more.
    assert volumes == [0.0, 2.0, 2.5, 2.5]


def test_counts_and_best():
    figures = RunningFigures()
    assert figures.scalars() == {"duplicates": 0, "failures": 0, "rejected": 0}
    figures.add(complete(1, 0.2, 10, 0.5))
    figures.add(complete(0, 0.2, 10, 0.5))
    figures.add(complete(2, 0.2, 10, 0.4, duplicate_of=1))
    figures.add(Trial(3, (), "", "", 0, state=TrialState.FAILED))
    figures.add(Trial(4, (), "", "", 0, state=TrialState.REJECTED, cost=30.0))
    assert figures.best.number == 0
    assert (figures.duplicates, figures.failures, figures.rejected) == (1, 1, 1)
    assert figures.scalars()["best_reward"] == 0.5


def test_a_trial_costs_the_same_however_many_there_were():
    space = mnasfpn_space(config.load_architecture("mobilenet_v2_mnasfpn"))
    rng = np.random.default_rng(0)
    tokens = [space.sample(rng) for _ in range(100)]
    figures = RunningFigures(space)

    def seconds(first):
        start = time.perf_counter()
        for number in range(first, first + 1000):
            accuracy, latency = rng.random(2).tolist()
            figures.add(complete(number, accuracy, latency, accuracy, tokens[number % 100]))
            figures.scalars()
        return time.perf_counter() - start

    times = [seconds(1000 * thousand) for thousand in range(10)]
    # A few milliseconds a trial would be bearable; this is far less.
    assert min(times) < 1.0
    assert min(times[5:]) < 5 * min(times[:5])
    assert 0.8 < figures.scalars()["entropy"] < 1.0

"""The search loop with children that take no training."""

import dataclasses
import itertools
import random
import threading
from concurrent.futures import Future

import numpy as np
import pytest

from mnasdet import config
from mnasdet.errors import Terminated, UserError
from mnasdet.networks.builder import canonical_key
from mnasdet.protos import pipeline_pb2
from mnasdet.search import reward
from mnasdet.search.attempts import EnvironmentFailedError
from mnasdet.search.candidate import candidate
from mnasdet.search.child import Outcome
from mnasdet.search.controllers.ppo import Ppo
from mnasdet.search.controllers.random_search import RandomSearch
from mnasdet.search.controllers.regularized_evolution import RegularizedEvolution
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.executors.worker_processes import WorkerProcesses
from mnasdet.search.latency import MultiplyAdds
from mnasdet.search.limits import Limits
from mnasdet.search.search import Search
from mnasdet.search.trials.trial_store import TrialState, TrialStore
from tests.search import cheap_children
from tests.search_spaces.architectures import mnasfpn_space

CONTROLLERS = {
    "ppo": lambda space: Ppo(space, seed=0, batch_size=4, learning_rate=0.01),
    "random": lambda space: RandomSearch(space, seed=0),
    "regularized_evolution": lambda space: RegularizedEvolution(
        space, seed=0, population_size=5, tournament_size=3
    ),
}


@pytest.fixture
def pipeline():
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.model.architecture_name = "mobilenet_v2_mnasfpn"
    pipeline.model.ssd.num_classes = 3
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.height = 64
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.width = 64
    return pipeline


def make(pipeline, path, executor=None, controller="ppo", num_internal_blocks=1, **arguments):
    # Few choices, so that duplicates turn up.
    space = mnasfpn_space(
        config.resolve(pipeline).architecture,
        channels=[16],
        expanded_channels=[16],
        kernel_sizes=[3],
        repeats=1,
        num_internal_blocks=num_internal_blocks,
    )
    return Search(
        pipeline=pipeline,
        store=TrialStore(path / "trials.db"),
        space=space,
        controller=CONTROLLERS[controller](space),
        reward=reward.mnasfpn,
        latency=MultiplyAdds(),
        executor=executor or ThisProcess(cheap_children.accuracy),
        max_pending=4,
        seed=5,
        **arguments,
    )


def timeless(trials):
    """Returns the fields of trials that two runs of one search have in common."""
    return [dataclasses.replace(t, started=None, finished=None, worker=None) for t in trials]


def test_every_trial_is_stored_and_rewarded(pipeline, tmp_path):
    seen = []
    search = make(pipeline, tmp_path)
    search.on_trial = seen.append
    trials = search.run(6)
    assert [trial.number for trial in trials] == list(range(6))
    assert sorted(seen, key=lambda trial: trial.number) == trials == search.store.trials()
    first = trials[0]
    found = candidate(pipeline, search.space.decode(first.tokens))
    assert first.key == canonical_key(found.network.outputs)
    assert first.seed == 5
    accuracy = first.metrics["DetectionBoxes_Precision/mAP"]
    expected = accuracy * (first.metrics["multiply_adds"] / 1e9) ** -0.3
    assert first.reward == pytest.approx(expected)


@pytest.mark.parametrize("controller", list(CONTROLLERS))
def test_interrupted_anywhere_it_ends_like_an_uninterrupted_one(pipeline, tmp_path, controller):
    (tmp_path / "whole").mkdir()
    expected = timeless(make(pipeline, tmp_path / "whole", controller=controller).run(14))

    class Interrupted(Exception):
        pass

    for done in (0, 1, 3, 4, 9, 13):
        folder = tmp_path / f"after_{done}"
        folder.mkdir()

        def child(task, done=done):
            if task.seed - 5 >= done:
                raise Interrupted
            return cheap_children.accuracy(task)

        with pytest.raises(Interrupted):
            make(pipeline, folder, ThisProcess(child), controller).run(14)
        assert timeless(make(pipeline, folder, controller=controller).run(14)) == expected


def test_a_longer_search_begins_like_the_shorter_one(pipeline, tmp_path):
    make(pipeline, tmp_path).run(6)
    longer = timeless(make(pipeline, tmp_path).run(11))
    (tmp_path / "at_once").mkdir()
    assert longer == timeless(make(pipeline, tmp_path / "at_once").run(11))


class Repeating:
    """Proposes two architectures again and again."""

    def __init__(self, space):
        rng = np.random.default_rng(0)
        self.proposals = itertools.cycle([space.sample(rng), space.sample(rng)])

    def propose(self, n):
        return list(itertools.islice(self.proposals, n))

    def feedback(self, results):
        assert all(result.reward is not None for result in results)


def test_duplicates_are_trained_once(pipeline, tmp_path):
    trained = []

    def child(task):
        trained.append(task)
        return cheap_children.accuracy(task)

    search = make(pipeline, tmp_path, ThisProcess(child))
    search.controller = Repeating(search.space)
    trials = search.run(7)
    assert len(trained) == 2
    # In the batch of the original as well as in later ones.
    assert [trial.duplicate_of for trial in trials] == [None, None, 0, 1, 0, 1, 0]
    for trial in trials[2:]:
        assert trial.reward == trials[trial.duplicate_of].reward
        assert trial.state is TrialState.COMPLETE


def test_failed_children_are_trials_with_a_reason(pipeline, tmp_path):
    def child(task):
        return (
            Outcome(error="training diverged") if task.seed % 2 else cheap_children.accuracy(task)
        )

    trials = make(pipeline, tmp_path, ThisProcess(child)).run(8)
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    assert [trial.number for trial in failed] == [0, 2, 4, 6]
    assert {trial.error for trial in failed} == {"training diverged"}
    assert {trial.reward for trial in failed} == {None}


def test_worker_processes_give_the_same_trials(pipeline, tmp_path):
    for folder in ("here", "workers"):
        (tmp_path / folder).mkdir()
    expected = timeless(make(pipeline, tmp_path / "here").run(8))
    executor = WorkerProcesses(2, run_child=cheap_children.accuracy)
    try:
        assert timeless(make(pipeline, tmp_path / "workers", executor).run(8)) == expected
    finally:
        executor.close()


def test_a_store_of_another_search_is_refused(pipeline, tmp_path):
    make(pipeline, tmp_path).run(4)
    with pytest.raises(UserError, match="trial 0 in the store is not what this search proposes"):
        make(pipeline, tmp_path, num_internal_blocks=2).run(4)


class Shuffled:
    """An executor whose children end in a random order, each in its own thread."""

    def __init__(self, seed):
        self._random = random.Random(seed)

    def submit(self, task):
        future = Future()

        def run():
            future.set_result(cheap_children.accuracy(task))

        threading.Timer(self._random.uniform(0, 0.02), run).start()
        return future


@pytest.mark.parametrize("controller", list(CONTROLLERS))
def test_the_order_in_which_children_end_does_not_matter(pipeline, tmp_path, controller):
    (tmp_path / "in_order").mkdir()
    expected = timeless(make(pipeline, tmp_path / "in_order", controller=controller).run(30))
    for seed in range(2):
        folder = tmp_path / f"shuffled_{seed}"
        folder.mkdir()
        assert timeless(make(pipeline, folder, Shuffled(seed), controller).run(30)) == expected


class Recording:
    """A controller that tells what it knows at every proposal."""

    def __init__(self, space):
        self._random = RandomSearch(space)
        self.known = []
        self.known_at_proposal = []

    def propose(self, n):
        self.known_at_proposal += [list(self.known)] * n
        return self._random.propose(n)

    def feedback(self, results):
        self.known += results


def test_a_proposal_knows_all_results_but_the_latest(pipeline, tmp_path):
    search = make(pipeline, tmp_path, Shuffled(0))
    search.controller = recording = Recording(search.space)
    trials = search.run(12)
    told = [(trial.tokens, trial.reward) for trial in trials]
    for number, known in enumerate(recording.known_at_proposal):
        assert [result[:2] for result in known] == told[: max(0, number - 4 + 1)]
    first = trials[0]
    assert recording.known[0].objectives == (
        first.metrics["DetectionBoxes_Precision/mAP"],
        -first.cost,
    )


@pytest.mark.parametrize("limit", ["max_params", "max_multiply_adds", "max_latency_ms"])
def test_what_is_over_a_limit_is_never_trained(pipeline, tmp_path, limit):
    def figure(trial):
        return trial.metrics.get(limit.removeprefix("max_"), trial.cost)

    def child(task):
        trained.append(task.seed - 5)
        return cheap_children.accuracy(task)

    free = make(pipeline, tmp_path, controller="random").run(20)
    most = sorted(map(figure, free))[10]
    trained, seen = [], []
    (tmp_path / "limited").mkdir()
    search = make(
        pipeline,
        tmp_path / "limited",
        ThisProcess(child),
        controller="random",
        limits=Limits(**{limit.replace("latency_ms", "cost"): most}),
    )
    search.on_trial = seen.append
    trials = search.run(20)
    rejected = {trial.number for trial in trials if trial.state is TrialState.REJECTED}
    assert rejected == {trial.number for trial in free if figure(trial) > most} != set()
    for number in rejected:
        assert f" over limits.{limit}, {most:,}"[:30] in trials[number].error
        assert trials[number].reward is None
        assert trials[number].cost == free[number].cost
    assert not rejected & set(trained)
    assert sorted(trial.number for trial in seen) == list(range(20))


def test_a_child_may_reject_itself(pipeline, tmp_path):
    def child(task):
        assert task.max_file_size == 5
        return Outcome(error="the file has 6 bytes", rejected=True)

    search = make(pipeline, tmp_path, ThisProcess(child), limits=Limits(max_file_size=5))
    assert {trial.state for trial in search.run(3)} == {TrialState.REJECTED}


def test_ctrl_c_lets_the_children_in_training_end(pipeline, tmp_path):
    class Interrupting(Shuffled):
        def submit(self, task):
            if task.seed - 5 == 7:
                raise KeyboardInterrupt
            return super().submit(task)

    search = make(pipeline, tmp_path, Interrupting(0))
    with pytest.raises(KeyboardInterrupt):
        search.run(14)
    trials = search.store.trials()
    assert [trial.number for trial in trials] == list(range(8))
    assert all(trial.is_finished for trial in trials[:7])
    (tmp_path / "whole").mkdir()
    expected = timeless(make(pipeline, tmp_path / "whole").run(14))
    assert timeless(make(pipeline, tmp_path).run(14)) == expected


def test_sigterm_waits_for_no_child_and_leaves_its_trial_open(pipeline, tmp_path):
    class Stopping(Shuffled):
        def submit(self, task):
            if task.seed - 5 == 3:
                raise Terminated
            return Future()  # Never done.

    search = make(pipeline, tmp_path, Stopping(0))
    with pytest.raises(Terminated):
        search.run(14)
    assert [trial.state for trial in search.store.trials()] == [TrialState.PENDING] * 4
    (tmp_path / "whole").mkdir()
    expected = timeless(make(pipeline, tmp_path / "whole").run(14))
    assert timeless(make(pipeline, tmp_path).run(14)) == expected


def test_where_no_child_can_be_trained_all_trials_stay_open(pipeline, tmp_path):
    def no_data(task):
        return Outcome(error="a.record: does not exist", environmental=True)

    search = make(pipeline, tmp_path, ThisProcess(no_data), pauses=[0.0])
    with pytest.raises(EnvironmentFailedError, match="a.record: does not exist .2 times."):
        search.run(14)
    assert {trial.state for trial in search.store.trials()} == {TrialState.PENDING}
    (tmp_path / "whole").mkdir()
    expected = timeless(make(pipeline, tmp_path / "whole").run(14))
    assert timeless(make(pipeline, tmp_path).run(14)) == expected


class MeasuredAlone(MultiplyAdds):
    """Has to measure every third network, and may do so only while nothing is in training."""

    def __init__(self, running):
        self._running = running
        self._asked = 0

    def has_to_measure(self, candidates):
        self._asked += 1
        self._alone = self._asked % 3 == 0
        return self._alone

    def costs(self, candidates):
        assert not (self._alone and self._running), "children are in training"
        return super().costs(candidates)


def test_nothing_trains_while_latency_is_measured(pipeline, tmp_path):
    running = set()

    class Counting(Shuffled):
        def submit(self, task):
            running.add(task.seed)
            future = super().submit(task)
            future.add_done_callback(lambda _: running.remove(task.seed))
            return future

    search = make(pipeline, tmp_path, Counting(0))
    search.latency = MeasuredAlone(running)
    assert len(search.run(20)) == 20

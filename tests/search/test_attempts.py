"""Who is to blame for a child that fails: its architecture or the environment."""

from concurrent.futures import Future

import pytest

from mnasdet.evaluation.coco import MAP
from mnasdet.search import attempts
from mnasdet.search.attempts import Attempts, EnvironmentFailedError
from mnasdet.search.child import ChildTask, Outcome

GOOD = Outcome(metrics={MAP: 0.5})
LOST = Outcome(error="worker lost: killed by SIGSEGV", environmental=True)
NO_DATA = Outcome(error="train.record: does not exist", environmental=True)
DIVERGED = Outcome(error="training diverged")


class Scripted:
    """An executor whose child `name` has the outcomes of its script, one after the other."""

    def __init__(self, **scripts):
        self.scripts = {name: iter(script) for name, script in scripts.items()}
        self.submitted = []

    def submit(self, task):
        self.submitted.append(task.architecture)
        future = Future()
        future.set_result(next(self.scripts[task.architecture]))
        return future


def children(executor, names, pauses=(0.0, 0.0)):
    started = Attempts(executor, pauses)
    for name in names:
        started.start(name, ChildTask(b"", name, 0))
    return started


def results_of(started):
    results = {}
    while len(started):
        results.update(started.finished() or started.fail())
    return {name: outcome.error for name, outcome in results.items()}


def test_a_failure_of_the_architecture_is_a_result_at_once():
    executor = Scripted(a=[DIVERGED], b=[GOOD])
    assert results_of(children(executor, "ab")) == {"a": "training diverged", "b": None}
    assert executor.submitted == ["a", "b"]


def test_a_failure_of_the_environment_is_tried_again(caplog):
    executor = Scripted(a=[NO_DATA, LOST, GOOD])
    assert results_of(children(executor, "a")) == {"a": None}
    assert "train.record: does not exist; retry 1 of 2 in 0 s" in caplog.text


def test_the_pauses_are_kept(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(attempts.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(attempts.time, "sleep", lambda seconds: now.append(now.pop() + seconds))
    executor = Scripted(a=[NO_DATA, NO_DATA, NO_DATA, GOOD])
    assert results_of(children(executor, "a", attempts.pauses(3))) == {"a": None}
    assert now == [100.0 + 1 + 30 + 60]
    assert attempts.pauses(0) == ()
    assert attempts.pauses(5) == (1.0, 30.0, 60.0, 60.0, 60.0)


def test_a_child_that_fails_while_others_are_trained_has_failed():
    executor = Scripted(a=[LOST] * 3, b=[GOOD], c=[GOOD])
    started = children(executor, "a")
    assert started.finished() == []
    for name in "bc":
        started.start(name, ChildTask(b"", name, 0))
    assert results_of(started) == {"a": LOST.error, "b": None, "c": None}


def test_a_training_that_began_before_the_failure_proves_nothing():
    """It may have read its data before they were gone."""
    executor = Scripted(a=[NO_DATA] * 3, b=[Outcome(metrics={MAP: 0.5}, seconds=3600.0)])
    started = children(executor, "a")
    assert started.finished() == []
    started.start("b", ChildTask(b"", "b", 0))
    assert started.finished() == [("b", Outcome(metrics={MAP: 0.5}, seconds=3600.0))]
    with pytest.raises(EnvironmentFailedError, match="does not exist .3 times.; nothing is lost"):
        results_of(started)


def test_where_nothing_can_be_trained_nothing_has_failed():
    executor = Scripted(a=[NO_DATA] * 3, b=[DIVERGED], c=[NO_DATA] * 3)
    started = children(executor, "abc")
    assert started.finished() == [("b", DIVERGED)]
    with pytest.raises(EnvironmentFailedError, match="children cannot be trained: train.record"):
        results_of(started)


def test_many_children_that_fail_need_no_further_proof():
    names = "abcdefgh"
    executor = Scripted(**{name: [NO_DATA] for name in names})
    started = Attempts(executor, pauses=())
    with pytest.raises(EnvironmentFailedError):
        for name in names:
            started.start(name, ChildTask(b"", name, 0))
            started.finished()
    assert len(executor.submitted) == 5


def test_more_lost_than_trained_is_the_environment_s_fault():
    executor = Scripted(a=[LOST], b=[LOST], c=[GOOD])
    started = children(executor, "ab", pauses=())
    assert started.finished() == []
    started.start("c", ChildTask(b"", "c", 0))
    with pytest.raises(EnvironmentFailedError, match="SIGSEGV"):
        results_of(started)


def test_draining_waits_for_no_retry():
    executor = Scripted(a=[NO_DATA, GOOD], b=[GOOD])
    started = children(executor, "ab", pauses=[1000.0])
    assert started.drain() == [("b", GOOD)]
    assert executor.submitted == ["a", "b"]

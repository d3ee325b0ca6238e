"""Who is to blame for a child that fails: its architecture or the environment."""

import threading
from concurrent.futures import Future

import pytest

from mnasdet.evaluation.coco import MAP
from mnasdet.search import attempts
from mnasdet.search.attempts import Attempts, EnvironmentFailedError
from mnasdet.search.child import ChildTask, Outcome, trained

GOOD = trained({MAP: 0.5}, MAP)
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


def test_a_child_that_fails_while_another_can_be_trained_has_failed(caplog):
    executor = Scripted(a=[LOST] * 3, b=[GOOD, GOOD], c=[DIVERGED])
    assert results_of(children(executor, "bac")) == {
        "a": LOST.error,
        "b": None,
        "c": "training diverged",
    }
    # The one that could be trained, once more.
    assert executor.submitted == list("bacaab")
    assert "the child failed 3 times, and another could be trained meanwhile" in caplog.text


def test_a_child_of_an_earlier_run_is_a_proof():
    executor = Scripted(a=[LOST], earlier=[GOOD])
    started = Attempts(executor, pauses=(), proof=ChildTask(b"", "earlier", 0))
    started.start("a", ChildTask(b"", "a", 0))
    assert results_of(started) == {"a": LOST.error}


def test_where_the_proof_fails_too_nothing_has_failed():
    executor = Scripted(a=[NO_DATA] * 3, b=[GOOD, NO_DATA], c=[NO_DATA] * 3)
    started = children(executor, "b")
    assert started.finished() == [("b", GOOD)]
    for name in "ac":
        started.start(name, ChildTask(b"", name, 0))
    with pytest.raises(EnvironmentFailedError, match="does not exist .* nothing is lost"):
        results_of(started)
    assert len(started) == 2


def test_results_are_handed_over_before_the_end():
    """Tests that a child in training when the proof failed still counts."""
    late = Future()

    class Late(Scripted):
        def submit(self, task):
            if task.architecture == "late":
                self.submitted.append("late")
                return late
            if task.architecture == "b" and "late" in self.submitted:
                threading.Timer(0.05, late.set_result, [GOOD]).start()
            return super().submit(task)

    executor = Late(a=[NO_DATA], b=[GOOD, NO_DATA])
    started = children(executor, "b", pauses=())
    assert started.finished() == [("b", GOOD)]
    for name in ("late", "a"):
        started.start(name, ChildTask(b"", name, 0))
    assert started.finished() == [("late", GOOD)]
    with pytest.raises(EnvironmentFailedError):
        started.finished()


def test_where_nothing_was_ever_trained_nothing_has_failed():
    executor = Scripted(a=[NO_DATA] * 3, b=[DIVERGED], c=[NO_DATA] * 3)
    started = children(executor, "abc")
    assert started.finished() == [("b", DIVERGED)]
    with pytest.raises(EnvironmentFailedError, match="children cannot be trained: train.record"):
        results_of(started)


def test_many_children_that_fail_need_no_proof_where_none_was_trained():
    names = "abcdefgh"
    executor = Scripted(**{name: [NO_DATA] for name in names})
    started = Attempts(executor, pauses=())
    with pytest.raises(EnvironmentFailedError):
        for name in names:
            started.start(name, ChildTask(b"", name, 0))
            started.finished()
    assert len(executor.submitted) == 5


def test_draining_waits_for_no_retry():
    executor = Scripted(a=[NO_DATA, GOOD], b=[GOOD], c=[NO_DATA])
    started = children(executor, "abc", pauses=[1000.0])
    assert [one for results in started.drain() for one in results] == [("b", GOOD)]
    assert executor.submitted == ["a", "b", "c"]

"""Executors with real processes: what works, what dies, what hangs."""

import contextlib

import pytest

from mnasdet.evaluation.coco import MAP
from mnasdet.protos import search_pb2
from mnasdet.search import executors
from mnasdet.search.child import ChildTask, Outcome
from tests.search import cheap_children

TASK = ChildTask(b"", "architecture", 1)


@contextlib.contextmanager
def workers(run_child, **arguments):
    executor = executors.WorkerProcesses(
        arguments.pop("num_workers", 1), run_child=run_child, **arguments
    )
    try:
        yield executor
    finally:
        executor.close()


def test_this_process_and_workers_give_the_same():
    here = executors.ThisProcess(cheap_children.accuracy).submit(TASK).result()
    with workers(cheap_children.accuracy) as executor:
        there = executor.submit(TASK).result()
    assert here.metrics == there.metrics
    assert here.worker == "this process"
    assert there.worker.startswith("process ")


def test_workers_stay_warm_and_share_the_work():
    with workers(cheap_children.process_id, num_workers=2) as executor:
        futures = [executor.submit(TASK) for _ in range(40)]
        ids = [future.result().metrics[MAP] for future in futures]
    assert len(set(ids)) == 2


def test_a_child_that_always_kills_its_worker_has_failed():
    with workers(cheap_children.dies, max_retries=1) as executor:
        outcome = executor.submit(TASK).result()
    assert outcome.error == "worker lost: killed by SIGKILL"


def test_a_lost_worker_is_tried_again(tmp_path):
    with workers(cheap_children.dies_once, max_retries=1) as executor:
        outcome = executor.submit(ChildTask(b"", str(tmp_path / "died"), 0)).result()
    assert outcome.error is None
    assert outcome.metrics == {MAP: 0.5}


def test_a_child_that_hangs_has_failed():
    with workers(cheap_children.hangs, max_trial_seconds=1) as executor:
        assert executor.submit(TASK).result().error == "took longer than 1 s"


def test_a_bug_of_ours_reaches_the_search():
    with (
        workers(cheap_children.has_a_bug) as executor,
        pytest.raises(ZeroDivisionError, match="a bug of ours"),
    ):
        executor.submit(TASK).result()


def test_closing_ends_what_is_running():
    with workers(cheap_children.hangs) as executor:
        future = executor.submit(TASK)
        while not executor._workers:
            pass
    assert future.result() == Outcome(
        error="worker lost: killed by SIGKILL", worker=future.result().worker
    )


def test_from_config():
    assert isinstance(executors.from_config(search_pb2.ExecutorConfig()), executors.ThisProcess)
    proto = search_pb2.ExecutorConfig(worker_processes={"num_workers": 3})
    executor = executors.from_config(proto)
    assert isinstance(executor, executors.WorkerProcesses)
    executor.close()

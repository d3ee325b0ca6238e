"""Queues of trainings, and what they print."""

import io

import pytest
from google.protobuf import text_format

from mnasdet.evaluation.coco import MAP
from mnasdet.protos import search_pb2
from mnasdet.search.child import ChildTask, trained
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.executors.worker_processes import WorkerProcesses
from mnasdet.search.training_queue import QueueProgress, num_workers, outcomes
from tests.search import cheap_children


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 1),
        ("this_process {}", 1),
        ("worker_processes { num_workers: 3 }", 3),
        ("ray { num_workers: 5 }", 5),
    ],
)
def test_num_workers(text, expected):
    assert num_workers(text_format.Parse(text, search_pb2.ExecutorConfig())) == expected


def test_a_task_is_taken_when_the_one_before_has_its_outcome():
    log = []

    def child(task):
        log.append(f"train {task.seed}")
        return trained({MAP: float(task.seed)}, MAP)

    def tasks():
        for seed in range(3):
            log.append(f"start {seed}")
            yield f"task {seed}", ChildTask(b"", "", seed)

    for label, outcome in outcomes(ThisProcess(child), tasks(), 1):
        log.append(f"{label}: {outcome.metrics[MAP]:g}")
    assert log == [
        line for n in range(3) for line in (f"start {n}", f"train {n}", f"task {n}: {n}")
    ]


def test_side_by_side_every_task_has_its_own_outcome():
    executor = WorkerProcesses(2, run_child=cheap_children.accuracy, prepare=print)
    tasks = [(seed, ChildTask(b"", "net", seed)) for seed in range(7)]
    try:
        found = dict(outcomes(executor, tasks, 2))
    finally:
        executor.close()
    assert {seed: outcome.metrics for seed, outcome in found.items()} == {
        seed: cheap_children.accuracy(task).metrics for seed, task in tasks
    }


def test_what_a_queue_prints():
    stream, seconds = io.StringIO(), iter([100.0, 110.0, 3730.0, 8000.0])
    progress = QueueProgress([1, 4, 5], 2, stream=stream, clock=lambda: next(seconds))
    progress(1, "small  mAP 0.5")
    progress(4, "large  FAILED: why")
    progress(5, "huge  mAP 0.6")
    assert stream.getvalue().splitlines() == [
        "resumed: 2 of 5 trainings are done",
        # The first has TensorFlow's start in it; the second does 4 of 9 in 3620 s.
        "training 3/5  small  mAP 0.5  elapsed 0:00:10  ETA -",
        "training 4/5  large  FAILED: why  elapsed 1:00:30  ETA 1:15:25",
        "training 5/5  huge  mAP 0.6  elapsed 2:11:40  ETA 0:00:00",
    ]


def test_a_queue_goes_by_what_follows_the_first_of_every_worker():
    stream, seconds = io.StringIO(), iter([0.0, 50.0, 60.0, 80.0])
    progress = QueueProgress([1] * 5, num_workers=2, stream=stream, clock=lambda: next(seconds))
    for _ in range(3):
        progress(1, "")
    # One in the 20 s after the second, and two are left.
    assert [line.split("ETA ")[1] for line in stream.getvalue().splitlines()] == [
        "-",
        "-",
        "0:00:40",
    ]

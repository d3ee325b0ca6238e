"""Workers that are real processes: what works, what dies, what hangs, what grows."""

import contextlib
import functools
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from mnasdet.evaluation.coco import MAP
from mnasdet.search.attempts import Attempts
from mnasdet.search.child import ChildTask
from mnasdet.search.executors import warm_process
from mnasdet.search.executors.worker_processes import WorkerProcesses
from tests.search import cheap_children
from tests.search.executors.cheap_workers import (
    ROOT,
    TASK,
    process_in,
    remembering,
    running,
    wait_for,
)

workers = functools.partial(running, WorkerProcesses)


def test_the_outcome_is_as_here_and_names_the_process():
    with workers(cheap_children.accuracy) as executor:
        outcome = executor.submit(TASK).result()
    assert outcome.metrics == cheap_children.accuracy(TASK).metrics
    assert outcome.worker.startswith("process ")


def test_workers_stay_warm_and_share_the_work():
    with workers(cheap_children.process_id, num_workers=2) as executor:
        outcomes = cheap_children.outcomes_of_all(executor, 2)
        outcomes += [f.result() for f in [executor.submit(TASK) for _ in range(10)]]
    assert len({outcome.metrics[MAP] for outcome in outcomes}) == 2


@pytest.mark.parametrize(
    ("run_child", "reason"),
    [
        (cheap_children.dies, "worker lost: killed by SIGKILL (out of memory?)"),
        (cheap_children.crashes, "worker lost: killed by SIGSEGV"),
        (cheap_children.exits, "worker lost: exit status 7"),
    ],
)
def test_a_child_that_always_ends_its_worker_has_failed(run_child, reason):
    with workers(run_child) as executor:
        outcome = executor.submit(TASK).result()
    assert outcome.error == reason
    # Whether that is the architecture's fault, other children tell.
    assert outcome.environmental


def test_a_lost_worker_is_tried_again(tmp_path):
    with workers(cheap_children.dies_once) as executor:
        children = Attempts(executor, pauses=[0.0])
        children.start("one", remembering(tmp_path / "died"))
        ((label, outcome),) = children.finished()
    assert (label, outcome.error) == ("one", None)
    assert outcome.metrics == {MAP: 0.5}


def test_a_worker_that_dies_while_idle_is_replaced_in_silence(caplog):
    with workers(cheap_children.process_id) as executor:
        first = int(executor.submit(TASK).result().metrics[MAP])
        os.kill(first, signal.SIGKILL)
        # Its thread may have seen it die and replaced it by now.
        wait_for(
            lambda: (
                not any(
                    worker.name == f"process {first}" and worker.is_fit()
                    for worker in list(executor._workers)
                )
            )
        )
        outcome = executor.submit(TASK).result()
    assert outcome.metrics[MAP] != first
    assert not caplog.records


def test_a_child_that_hangs_has_failed():
    with workers(cheap_children.hangs_if_named_so, max_trial_seconds=0.5) as executor:
        hanging = executor.submit(ChildTask(b"", "hangs", 0))
        next_one = executor.submit(TASK)
        assert hanging.result().error == "took longer than 0.5 s"
        assert next_one.result().worker != hanging.result().worker


def test_a_child_that_takes_too_much_memory_has_failed():
    with workers(cheap_children.takes_300_mb, max_memory_mb=200) as executor:
        error = executor.submit(TASK).result().error
    used = float(error.removeprefix("out of memory: used ").split(" MB ")[0])
    assert error.endswith(" of the 200 MB that max_memory_mb allows")
    assert 200 < used < 500


def test_the_memory_of_its_own_processes_counts_and_they_end_with_it(tmp_path):
    file = tmp_path / "pid"
    with workers(cheap_children.its_process_takes_300_mb, max_memory_mb=200) as executor:
        error = executor.submit(remembering(file)).result().error
    assert error.startswith("out of memory: used ")
    wait_for(lambda: not is_running(int(file.read_text())))


def is_running(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_a_worker_that_keeps_memory_is_replaced_between_children(monkeypatch):
    monkeypatch.setattr(warm_process, "MAX_GROWTH_MB", 100)
    with workers(cheap_children.keeps_60_mb) as executor:
        ids = [executor.submit(TASK).result().metrics[MAP] for _ in range(6)]
    # The second one adds 60 MB, the third one another 60.
    assert len(set(ids)) == 2
    assert ids == sorted(ids, key=ids.index)
    assert ids.count(ids[0]) == 3


def test_each_worker_sees_its_device():
    with workers(
        cheap_children.visible_devices, num_workers=3, visible_devices=["4", "7"]
    ) as executor:
        outcomes = cheap_children.outcomes_of_all(executor, 3)
    seen = {outcome.worker: outcome.metrics[MAP] for outcome in outcomes}
    assert sorted(seen.values()) == [4, 4, 7]


def test_the_gpus_of_the_machine_are_shared_out(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho Tesla T4\necho Tesla T4\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with workers(cheap_children.visible_devices, num_workers=3) as executor:
        outcomes = cheap_children.outcomes_of_all(executor, 3)
    seen = {outcome.worker: outcome.metrics[MAP] for outcome in outcomes}
    assert sorted(seen.values()) == [0, 0, 1]


def test_a_bug_of_ours_reaches_the_search_with_its_traceback():
    with (
        workers(cheap_children.has_a_bug) as executor,
        pytest.raises(ZeroDivisionError, match="a bug of ours") as bug,
    ):
        executor.submit(TASK).result()
    assert "in has_a_bug" in str(bug.value.__cause__)


def test_a_bug_that_does_not_pickle_reaches_the_search_too():
    with (
        workers(cheap_children.has_a_bug_that_does_not_pickle) as executor,
        pytest.raises(RuntimeError, match="_TwoArguments: a bug"),
    ):
        executor.submit(TASK).result()


def test_closing_ends_what_runs_and_what_waits():
    with workers(cheap_children.hangs) as executor:
        futures = [executor.submit(TASK) for _ in range(3)]
        wait_for(futures[0].running)
        begun = time.monotonic()
    assert time.monotonic() - begun < 10
    for future in futures:
        assert future.result().error == "interrupted: the search ended first"


def test_workers_are_out_of_reach_of_ctrl_c():
    with workers(cheap_children.process_id) as executor:
        first = int(executor.submit(TASK).result().metrics[MAP])
        assert os.getsid(first) != os.getsid(0)
        os.kill(first, signal.SIGINT)
        time.sleep(0.2)
        assert executor.submit(TASK).result().metrics[MAP] == first


SEARCH = """
import sys, time
from mnasdet.search.attempts import Attempts
from mnasdet.search.child import ChildTask
from mnasdet.search.executors.worker_processes import WorkerProcesses
from tests.search import cheap_children
# No guard against being imported by the workers: they do not.
executor = WorkerProcesses(
    1, run_child=cheap_children.{child}, prepare=cheap_children.prepare_nothing
)
future = executor.submit(ChildTask(b"", sys.argv[1], 0))
print(future.result().worker)
executor.close()
"""


@pytest.mark.parametrize(
    "child", ["hangs_once", "holds_the_interpreter_s_lock", "is_stopped", "its_process_hangs"]
)
def test_a_search_that_is_killed_leaves_no_process_behind(child, tmp_path):
    file = tmp_path / "pid"
    code = SEARCH.format(child=child)
    search = subprocess.Popen([sys.executable, "-c", code, str(file)], cwd=ROOT)
    process = process_in(file)
    assert is_running(process)
    group = os.getpgid(process)
    search.kill()
    search.wait()
    wait_for(lambda: not is_running(process))
    wait_for(lambda: not any(map(is_running, processes_of(group))))


def processes_of(group):
    """The processes of a process group."""
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            found += [pid] if os.getpgid(pid) == group else []
    return found


def test_standard_output_is_the_search_s_own():
    search = subprocess.run(
        [sys.executable, "-c", SEARCH.format(child="prints"), ""],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert search.stdout.startswith("process ")
    assert "printed by a child" not in search.stdout
    assert "printed by a child" in search.stderr

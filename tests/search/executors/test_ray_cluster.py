"""A real Ray cluster of several nodes, all of them on this machine's loopback."""

import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest

from mnasdet.errors import UserError
from mnasdet.evaluation.coco import MAP
from mnasdet.search.attempts import Attempts
from mnasdet.search.child import ChildTask
from mnasdet.search.executors import ray_cluster
from mnasdet.search.executors.ray_cluster import RayCluster
from tests.search import cheap_children, ray_nodes
from tests.search.executors.cheap_workers import (
    ROOT,
    TASK,
    process_in,
    remembering,
    running,
    wait_for,
)


@pytest.fixture(scope="module")
def cluster():
    with ray_nodes.two_nodes() as cluster:
        yield cluster


def workers(cluster, run_child, num_workers=1, **arguments):
    return running(RayCluster, run_child, num_workers, address=cluster.address, **arguments)


def node_of(outcome):
    return re.fullmatch(r"process \d+ on 127\.0\.0\.1 \(node (\w+)\)", outcome.worker)[1]


def test_the_children_spread_over_the_nodes(cluster):
    with workers(cluster, cheap_children.process_id, num_workers=2) as executor:
        outcomes = cheap_children.outcomes_of_all(executor, 2)
    assert len({node_of(outcome) for outcome in outcomes}) == 2
    # Warm: one process each.
    assert len({outcome.metrics[MAP] for outcome in outcomes}) == 2


def test_a_child_that_hangs_has_failed_and_its_process_is_replaced(cluster):
    with workers(cluster, cheap_children.hangs_if_named_so, max_trial_seconds=0.5) as executor:
        hanging = executor.submit(ChildTask(b"", "hangs", 0))
        next_one = executor.submit(TASK)
        assert hanging.result().error == "took longer than 0.5 s"
        assert next_one.result().worker != hanging.result().worker


def test_a_child_that_takes_too_much_memory_has_failed(cluster):
    with workers(cluster, cheap_children.takes_300_mb, max_memory_mb=200) as executor:
        assert executor.submit(TASK).result().error.startswith("out of memory: used ")


def test_a_child_that_always_ends_its_worker_has_failed(cluster):
    with workers(cluster, cheap_children.crashes) as executor:
        outcome = executor.submit(TASK).result()
    assert outcome.error == "worker lost: killed by SIGSEGV"
    assert outcome.environmental


def test_the_child_of_a_lost_actor_is_tried_again(cluster, tmp_path):
    with workers(cluster, cheap_children.kills_its_watchdog_once) as executor:
        children = Attempts(executor, pauses=[0.0])
        children.start("one", remembering(tmp_path / "file"))
        ((_, outcome),) = children.finished()
    assert outcome.metrics == {MAP: 0.5}


def test_an_actor_that_is_lost_too_often_is_given_up(cluster, tmp_path):
    with workers(cluster, cheap_children.kills_its_watchdog_once) as executor:
        error = executor.submit(remembering(tmp_path / "file")).result().error
    assert error == "worker lost: The actor is dead because its worker process has died"


def test_a_bug_of_ours_reaches_the_search_with_its_traceback(cluster):
    with (
        workers(cluster, cheap_children.has_a_bug) as executor,
        pytest.raises(ZeroDivisionError, match="a bug of ours") as bug,
    ):
        executor.submit(TASK).result()
    assert "in has_a_bug" in str(bug.value.__cause__)


def test_closing_ends_what_runs_and_leaves_the_cluster(cluster, tmp_path):
    file = tmp_path / "file"
    with workers(cluster, cheap_children.hangs_once) as executor:
        future = executor.submit(remembering(file))
        process = psutil.Process(process_in(file))
    assert future.result().error == "interrupted: the search ended first"
    wait_for(lambda: not process.is_running())
    assert cluster.head_node.any_processes_alive()


def test_workers_are_out_of_reach_of_ctrl_c(cluster):
    with workers(cluster, cheap_children.process_id) as executor:
        first = int(executor.submit(TASK).result().metrics[MAP])
        for pid in (first, psutil.Process(first).ppid()):
            os.kill(pid, signal.SIGINT)
        time.sleep(0.2)
        assert executor.submit(TASK).result().metrics[MAP] == first


def test_a_worker_that_fits_on_no_node_is_an_error_that_says_so(cluster):
    message = (
        r"a worker asks for 1 CPU, 2 GPU; the cluster has 127.0.0.1: 1 CPU, 0 GPU, "
        r"127.0.0.1: 1 CPU, 0 GPU; no node has as much"
    )
    with pytest.raises(UserError, match=message):
        RayCluster(1, address=cluster.address, gpus_per_worker=2)


def test_fewer_workers_than_asked_for_are_a_warning(cluster, caplog):
    with workers(cluster, cheap_children.accuracy, num_workers=5):
        assert "ray: 3 of 5 workers will wait: a worker asks for 1 CPU, 0 GPU" in caplog.text


def test_the_children_of_a_removed_node_are_tried_again_elsewhere(
    cluster, tmp_path, monkeypatch, caplog
):
    """The other node is full: its worker takes the child when it is free.

    The last test on this cluster: Ray holds a node that was not shut down in order to be alive for
    a while.
    """
    monkeypatch.setattr(ray_cluster, "_SECONDS_BETWEEN_WARNINGS", 0.5)
    second = next(iter(cluster.worker_nodes))
    with workers(cluster, cheap_children.hangs_once, num_workers=2) as executor:
        files = [tmp_path / name for name in "ab"]
        children = Attempts(executor, pauses=[0.0, 0.0])
        for file in files:
            children.start(file.name, remembering(file))
        processes = [psutil.Process(process_in(file)) for file in files]
        caplog.clear()
        cluster.remove_node(second, allow_graceful=False)
        wait_for(lambda: not all(process.is_running() for process in processes))
        wait_for(lambda: "a worker still waits to start: a worker asks for 1 CPU" in caplog.text)
        (left,) = [process for process in processes if process.is_running()]
        left.send_signal(signal.SIGKILL)
        results = []
        while len(children):
            results += children.finished()
    outcomes = [outcome for _, outcome in results]
    assert [outcome.metrics for outcome in outcomes] == [{MAP: 0.5}] * 2
    assert len({node_of(outcome) for outcome in outcomes}) == 1


def test_an_address_that_is_none_is_an_error():
    with pytest.raises(UserError, match="no cluster at address 'nonsense'"):
        RayCluster(1, address="nonsense")


def test_without_ray_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'pip install "mnasdet\[ray\]"'):
        RayCluster(1)


SEARCH = """
import sys
import psutil
from mnasdet.search.attempts import Attempts
from mnasdet.search.child import ChildTask
from mnasdet.search.executors.ray_cluster import RayCluster
from tests.search import cheap_children
executor = RayCluster(
    1,
    run_child=cheap_children.kills_its_watchdog_once,
    prepare=cheap_children.prepare_nothing,
    cpus_per_worker=3,
)
children = Attempts(executor, pauses=[0.0, 0.0])
children.start("one", ChildTask(b"", sys.argv[1], 1))
print(children.finished()[0][1].worker)
processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
ports = [c.laddr.ip for p in processes for c in p.net_connections() if c.status == "LISTEN"]
print("listens on", {ip.removeprefix("::ffff:") for ip in ports})
executor.close()
print("still there", psutil.wait_procs(processes[1:], timeout=10)[1])
"""


def test_a_cluster_of_its_own_is_quiet_and_private_and_ends_with_it(tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    search = subprocess.run(
        [sys.executable, "-c", SEARCH, str(tmp_path / "file")],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert search.returncode == 0, search.stderr
    # Nothing of Ray's on standard output, not even about the actor that was lost.
    worker, ports, left = search.stdout.splitlines()
    assert "retry 1 of 2" in search.stderr
    assert worker.startswith("process ")
    assert ports == "listens on {'127.0.0.1'}"
    assert left == "still there []"

"""Executors from their config."""

import pytest

from mnasdet.protos import search_pb2
from mnasdet.search import child
from mnasdet.search.executors import factory
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.executors.worker_processes import WorkerProcesses


@pytest.mark.parametrize("config", [{}, {"this_process": {}}])
def test_this_process(config):
    assert isinstance(factory.from_config(search_pb2.ExecutorConfig(**config)), ThisProcess)


def test_worker_processes():
    config = search_pb2.ExecutorConfig(
        worker_processes={
            "num_workers": 3,
            "max_trial_seconds": 60,
            "threads_per_worker": 5,
            "max_memory_mb": 4000,
            "visible_devices": ["0", "1"],
        },
    )
    executor = factory.from_config(config)
    assert isinstance(executor, WorkerProcesses)
    assert executor._num_workers == 3
    settings = executor._settings
    assert (settings.max_trial_seconds, settings.threads, settings.max_memory_mb) == (60, 5, 4000)
    assert settings.run_child is child.run_safely
    assert settings.prepare is child.prepare
    assert [executor._devices(index)["CUDA_VISIBLE_DEVICES"] for index in range(3)] == list("010")


def test_the_cores_are_shared_out(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(7)))
    config = search_pb2.ExecutorConfig(worker_processes={"num_workers": 3})
    assert factory.from_config(config)._settings.threads == 2


def test_ray_cluster(monkeypatch):
    seen = {}
    monkeypatch.setattr(factory, "RayCluster", lambda *a, **k: seen.update(k, num_workers=a[0]))
    ray = {
        "address": "10.0.0.1:6379",
        "num_workers": 8,
        "cpus_per_worker": 2,
        "gpus_per_worker": 0.5,
        "max_trial_seconds": 60,
        "threads_per_worker": 3,
        "max_memory_mb": 4000,
    }
    factory.from_config(search_pb2.ExecutorConfig(ray=ray))
    assert seen == ray

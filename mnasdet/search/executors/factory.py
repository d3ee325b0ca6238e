"""The executor that a config names."""

from __future__ import annotations

from mnasdet.protos import search_pb2
from mnasdet.search.executors.executor import Executor
from mnasdet.search.executors.ray_cluster import RayCluster
from mnasdet.search.executors.this_process import ThisProcess
from mnasdet.search.executors.worker_processes import WorkerProcesses


def from_config(config: search_pb2.ExecutorConfig) -> Executor:
    """Returns the executor; without one, this process. UserError if Ray cannot be used."""
    name = config.WhichOneof("executor_oneof")
    if name == "worker_processes":
        workers = config.worker_processes
        return WorkerProcesses(
            workers.num_workers,
            threads_per_worker=workers.threads_per_worker,
            max_trial_seconds=workers.max_trial_seconds,
            max_memory_mb=workers.max_memory_mb,
            visible_devices=workers.visible_devices,
        )
    if name == "ray":
        return RayCluster(
            config.ray.num_workers,
            address=config.ray.address,
            cpus_per_worker=config.ray.cpus_per_worker,
            gpus_per_worker=config.ray.gpus_per_worker,
            threads_per_worker=config.ray.threads_per_worker,
            max_trial_seconds=config.ray.max_trial_seconds,
            max_memory_mb=config.ray.max_memory_mb,
        )
    return ThisProcess()

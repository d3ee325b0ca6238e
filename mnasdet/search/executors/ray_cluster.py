"""Children on the machines of a Ray cluster."""

from __future__ import annotations

import logging as python_logging
import math
import os
import signal
from collections.abc import Callable
from typing import Any

from absl import logging

from mnasdet.errors import UserError
from mnasdet.search import child
from mnasdet.search.executors.executor import RunChild
from mnasdet.search.executors.warm_process import Settings, WarmProcess
from mnasdet.search.executors.worker_pool import WorkerLost, WorkerPool

_SECONDS_BETWEEN_WARNINGS = 30.0
_SECONDS_TO_ANSWER = 30.0

# Tasks and outcomes are small. Ray's default is a third of the memory; its minimum is 75 MiB.
_OBJECT_STORE_BYTES = 80 * 2**20


class RayCluster(WorkerPool):
    """Children in warm processes on a Ray cluster, each watched by an actor on its node.

    What ends a child is found out beside it, as in `WorkerProcesses`; what Ray adds is the loss of
    actors and nodes, whose children are tried again elsewhere.
    """

    def __init__(
        self,
        num_workers: int,
        *,
        address: str = "",
        cpus_per_worker: float = 1.0,
        gpus_per_worker: float = 0.0,
        threads_per_worker: int = 0,
        max_trial_seconds: float = 0.0,
        max_memory_mb: int = 0,
        run_child: RunChild = child.run_safely,
        prepare: Callable[[int], None] = child.prepare,
    ):
        """
        Args:
          address: of a running cluster, or "auto"; empty: one of this machine alone.
          cpus_per_worker, gpus_per_worker: what Ray reserves for each.
          threads_per_worker: 0: one for every reserved CPU.
          max_trial_seconds, max_memory_mb, prepare: those of `Settings`.
          run_child: found by its name on the nodes, which have mnasdet installed.

        Raises:
          UserError: no Ray, no cluster, or none of its nodes has room for a worker.
        """
        super().__init__(num_workers)
        self._settings = Settings(
            run_child=run_child,
            prepare=prepare,
            threads=threads_per_worker or max(1, int(cpus_per_worker)),
            max_trial_seconds=max_trial_seconds,
            max_memory_mb=max_memory_mb,
            # Without a share of them, the GPUs are others'; with one, Ray says which.
            environment={} if gpus_per_worker else {"CUDA_VISIBLE_DEVICES": ""},
        )
        self._ray = _import_ray(address)
        self._resources = {"CPU": cpus_per_worker, "GPU": gpus_per_worker}
        self._started_ray = not self._ray.is_initialized()
        if self._started_ray:
            _connect(self._ray, address, math.ceil(num_workers * cpus_per_worker))
        try:
            self._check_room()
        except UserError:
            self.close()
            raise
        self._watchdog = self._ray.remote(
            num_cpus=cpus_per_worker,
            num_gpus=gpus_per_worker,
            max_restarts=0,
            # By default Ray fills one node before it turns to the next.
            scheduling_strategy="SPREAD",
        )(_Watchdog)

    def close(self) -> None:
        super().close()
        if self._started_ray:
            self._ray.shutdown()

    def _start_worker(self, index: int) -> _RayWorker:
        return _RayWorker(self._ray, self._watchdog.remote(self._settings), self._describe_need)

    def _check_room(self) -> None:
        room = sum(_room(node, self._resources) for node in _live_nodes(self._ray))
        if room < 1:
            raise UserError(
                f"search_config.executor.ray: {self._describe_need()}; no node has as much. Lower "
                "cpus_per_worker or gpus_per_worker, or add a node"
            )
        if room < self._num_workers:
            logging.warning(
                "ray: %d of %d workers will wait: %s",
                self._num_workers - room,
                self._num_workers,
                self._describe_need(),
            )

    def _describe_need(self) -> str:
        """Tells what a worker asks for and what there is, for a message."""
        nodes = [
            f"{node['NodeManagerAddress']}: {_amounts(node['Resources'])}"
            for node in _live_nodes(self._ray)
        ]
        return f"a worker asks for {_amounts(self._resources)}; the cluster has {', '.join(nodes)}"


class _RayWorker:
    """The search's end of a watchdog and its process."""

    def __init__(self, ray: Any, actor: Any, describe_need: Callable[[], str]):
        self._ray = ray
        self._actor = actor
        self._describe_need = describe_need
        self.name = "ray"

    def wait_until_ready(self) -> None:
        """Raises WorkerLost if it dies before it is, UserError if its node lacks our code."""
        ready = self._actor.wait_until_ready.remote()
        while not self._ray.wait([ready], timeout=_SECONDS_BETWEEN_WARNINGS)[0]:
            logging.warning("ray: a worker still waits to start: %s", self._describe_need())
        self.name = self._get(ready)

    def run(self, task: child.ChildTask) -> child.Outcome:
        """Raises as `WarmProcess.run`, and WorkerLost if the actor or its node is lost."""
        return self._get(self._actor.run.remote(task))

    def is_fit(self) -> bool:
        try:
            return self._ray.get(self._actor.is_fit.remote(), timeout=_SECONDS_TO_ANSWER)
        except self._ray.exceptions.RayError:
            return False

    def close(self) -> None:
        # Its process ends with it.
        self._ray.kill(self._actor)

    def _get(self, answer: Any) -> Any:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(answer)
        except exceptions.RayTaskError as error:
            # The exception itself; Ray's has the worker's traceback.
            raise error.cause from error
        except exceptions.RayActorError as error:
            if error.actor_init_failed:
                raise UserError(
                    f"a Ray worker cannot start: {_last_line(error)}; the same mnasdet has to be "
                    "installed on all nodes"
                ) from error
            raise WorkerLost(_reason(error)) from error
        except exceptions.RayError as error:
            raise WorkerLost(_reason(error)) from error


class _Watchdog:
    """The actor: keeps the process on its node and tells how it dies."""

    def __init__(self, settings: Settings):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the search to handle.
        self._process = WarmProcess(settings)

    def wait_until_ready(self) -> str:
        """Returns the name of the process and its node."""
        import ray

        self._process.wait_until_ready()
        node = ray.get_runtime_context().get_node_id()
        return f"{self._process.name} on {ray.util.get_node_ip_address()} (node {node[:8]})"

    def run(self, task: child.ChildTask) -> child.Outcome:
        return self._process.run(task)

    def is_fit(self) -> bool:
        return self._process.is_fit()


def _import_ray(address: str) -> Any:
    """Imports Ray, with settings that it reads then; those of the environment prevail."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # As it will be in Ray's next version; says so at length if it is not set.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address:
        # How often it looks for a cluster, 40 seconds each time.
        os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "1")
    else:
        # Listens on loopback only, as on macOS: a cluster of one machine is no one else's.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError:
        raise UserError('the Ray executor needs Ray: pip install "mnasdet[ray]"') from None
    return ray


def _connect(ray: Any, address: str, num_cpus: int) -> None:
    """Joins the cluster, or starts one of this machine."""
    own: dict[str, Any] = {
        "num_cpus": num_cpus,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    # Ray prints its system's errors, such as lost workers, on standard output, whatever it is told.
    ray._private.worker._worker_logs_enabled = False
    try:
        ray.init(
            address or "local",  # Without a name, $RAY_ADDRESS would do.
            log_to_driver=False,
            logging_level=python_logging.ERROR,
            **({} if address else own),
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"search_config.executor.ray: no cluster at address {address!r}: {_last_line(error)}"
        ) from error


def _live_nodes(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _room(node: dict[str, Any], resources: dict[str, float]) -> float:
    """Returns how many workers fit on a node."""
    has = node["Resources"]
    return min(
        # A tenth fits ten times into one.
        (
            math.floor(has.get(name, 0.0) / amount + 1e-6)
            for name, amount in resources.items()
            if amount
        ),
        default=math.inf,
    )


def _amounts(resources: dict[str, float]) -> str:
    return ", ".join(f"{resources.get(name, 0.0):g} {name}" for name in ("CPU", "GPU"))


def _reason(error: Exception) -> str:
    """Returns why an actor is lost, without Ray's long advice."""
    reason = _last_line(error).split(". ")[0]
    return f"{reason} (node out of memory)" if "NODE_OUT_OF_MEMORY" in str(error) else reason


def _last_line(error: Exception) -> str:
    """Returns the last line: Ray's messages end with what matters."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__

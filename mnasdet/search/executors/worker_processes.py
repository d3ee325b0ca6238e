"""Children in processes of this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from mnasdet import cores, gpus
from mnasdet.search import child
from mnasdet.search.executors.executor import RunChild
from mnasdet.search.executors.warm_process import Settings, WarmProcess
from mnasdet.search.executors.worker_pool import WorkerPool


class WorkerProcesses(WorkerPool):
    """Children in warm processes.

    A worker that dies takes only its child with it, and the child is tried again. A child that
    exceeds a limit ends with its worker, and has failed.
    """

    def __init__(
        self,
        num_workers: int,
        *,
        threads_per_worker: int = 0,
        max_trial_seconds: float = 0.0,
        max_memory_mb: int = 0,
        visible_devices: Sequence[str] = (),
        run_child: RunChild = child.run_safely,
        prepare: Callable[[int], None] = child.prepare,
    ):
        """
        Args:
          threads_per_worker: 0 shares out the cores.
          max_trial_seconds, max_memory_mb, prepare: those of `Settings`.
          visible_devices: CUDA_VISIBLE_DEVICES of the workers, in turns; empty: the GPUs that are
            visible here are shared out.
          run_child: found by its name in the processes, so neither a lambda nor of __main__.
        """
        super().__init__(num_workers)
        self._visible_devices = list(visible_devices) or gpus.shared_out(
            gpus.visible(), num_workers
        )
        self._settings = Settings(
            run_child=run_child,
            prepare=prepare,
            threads=threads_per_worker or max(1, len(cores.available()) // num_workers),
            max_trial_seconds=max_trial_seconds,
            max_memory_mb=max_memory_mb,
        )

    def _start_worker(self, index: int) -> WarmProcess:
        return WarmProcess(dataclasses.replace(self._settings, environment=self._devices(index)))

    def _devices(self, index: int) -> dict[str, str]:
        devices = self._visible_devices
        return {"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]} if devices else {}

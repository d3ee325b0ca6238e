"""This machine: times TFLite graphs with TFLite's own `benchmark_model`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mnasdet.errors import UserError
from mnasdet.tflite.devices import benchmark_model, locks
from mnasdet.tflite.devices.benchmark_model import Options
from mnasdet.tflite.devices.device import DeviceSpec, timed
from mnasdet.tflite.devices.host import masked_cores
from mnasdet.tflite.devices.provenance import host_condition, of_host


@contextmanager
def opened(spec: DeviceSpec) -> Iterator[NativeHost]:
    """Yields this machine, held for this process alone among those that measure.

    Raises:
      UserError: the binary is missing, or this machine does not have the cores.
    """
    program = benchmark_model.check_binary(spec.binary)
    masked_cores(spec.options.taskset)
    with locks.first_free(["host"]):
        yield NativeHost(program, spec)


class NativeHost:
    """A Device."""

    def __init__(self, program: Path, spec: DeviceSpec) -> None:
        """Args:
        program: the binary's absolute path.
        """
        self._program = program
        self._spec = spec

    def provenance(self) -> dict[str, Any]:
        options = self._spec.options
        return of_host(taskset=options.taskset, **benchmark_model.of_binary(self._program, options))

    def benchmark(self, graph: str | os.PathLike) -> dict[str, Any]:
        def execute() -> dict[str, Any]:
            return self._execute(graph, self._spec.options)

        return timed(self, self._spec, graph, host_condition, execute)

    def quick_ms(self, graphs: Sequence[str | os.PathLike]) -> list[float]:
        options = benchmark_model.for_quick_ms(self._spec.options)
        return [benchmark_model.quick_ms(self._execute(graph, options)) for graph in graphs]

    def _execute(self, graph: str | os.PathLike, options: Options) -> dict[str, Any]:
        binary, seconds = self._spec.binary, self._spec.timeout_seconds
        try:
            done = subprocess.run(
                options.command(os.fspath(self._program), os.fspath(graph)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise UserError(f"{binary}: no end within {seconds:g} s; it hangs") from None
        except OSError as error:
            raise UserError(f"{binary}: cannot be executed: {error.strerror}") from None
        status = done.returncode if done.returncode >= 0 else 128 - done.returncode
        output = done.stdout.decode(errors="replace")
        return benchmark_model.read(output, status, options, os.fspath(binary))

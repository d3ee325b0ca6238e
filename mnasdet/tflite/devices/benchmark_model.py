"""TFLite's own benchmark binary, `benchmark_model`: its command line and what it prints.

Nothing is run here; `native` runs it on this machine, `android` on a phone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGKILL
from typing import Any

from mnasdet.errors import ConfigError, UserError
from mnasdet.tflite.devices.provenance import sha256

_NUMBER = r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?"
_STATISTICS = ("first", "min", "avg", "max", "std", "p5", "median", "p95")
_LOG_LEVEL = re.compile(r"^(?:VERBOSE|INFO|WARNING|ERROR): ")
_APPLIED = re.compile(r"Explicitly applied (\w+) delegate, .* (completely|partially) executed")
# Growth and peak. Old binaries call the growth of the peak the peak footprint; the second way to
# put it is that of the tool for LiteRT's CompiledModel.
_MEMORY = {
    "init_memory_mb": rf"(?:footprint.* \(MB\): init=|Init footprint: +)({_NUMBER})",
    "overall_memory_mb": rf"(?:footprint.* \(MB\): .*overall=|Overall footprint: +)({_NUMBER})",
    "peak_memory_mb": rf"(?:via periodic monitoring: |Peak memory: +)({_NUMBER})",
}
# A quick measurement's runs, and how many seconds they and the warm-up take, at least and at most.
_QUICK_RUNS = 50
_QUICK_WARMUP_RUNS = 3
_QUICK_MIN_SECONDS = 0.1
_QUICK_MAX_SECONDS = 0.5
# A microsecond is a hundredth of it.
_COARSE_MS = 0.1
# The complaints of the shell, the kernel and Android's linker about a file for another processor.
_WRONG_ABI = re.compile(
    r"not executable: |Exec format error|CANNOT LINK EXECUTABLE|cannot execute binary file"
)


@dataclass(frozen=True)
class Options:
    """The options of `benchmark_model`.

    Attributes:
      num_runs, warmup_runs: at least; the binary goes on until one second and half a second,
        respectively, are full.
      max_seconds: for the warm-up, and again for the runs; none is begun behind it.
      min_seconds: None: the second; otherwise what the runs have to fill in its place, and the
        warm-up as well.
      use_xnnpack: None leaves it to the binary, which newer ones answer with yes.
      enable_op_profiling: also times every operator, which slows the whole down a little.
      taskset: hexadecimal mask of the cores to run on ("f0": the upper four of eight); empty
        for all.
    """

    num_threads: int = 1
    num_runs: int = 50
    warmup_runs: int = 10
    max_seconds: float = 150.0
    min_seconds: float | None = None
    use_xnnpack: bool | None = None
    use_gpu: bool = False
    use_nnapi: bool = False
    enable_op_profiling: bool = False
    taskset: str = ""

    def __post_init__(self) -> None:
        if self.taskset and not re.fullmatch("(0x)?0*[1-9a-fA-F][0-9a-fA-F]*", self.taskset):
            raise ConfigError(
                f"--taskset={self.taskset}: a hexadecimal mask of cores is needed, such as f0"
            )

    def command(self, binary: str, graph: str) -> list[str]:
        """Returns the words of the command, unquoted."""
        pinned = ["taskset", self.taskset.removeprefix("0x")] if self.taskset else []
        flags: dict[str, Any] = {
            "graph": graph,
            "num_threads": self.num_threads,
            "num_runs": self.num_runs,
            "warmup_runs": self.warmup_runs,
            "max_secs": f"{self.max_seconds:g}",
        }
        if self.min_seconds is not None:
            flags["min_secs"] = flags["warmup_min_secs"] = f"{self.min_seconds:g}"
        flags |= self._delegate_flags()
        if self.enable_op_profiling:
            flags["enable_op_profiling"] = "true"
        return [*pinned, binary, *(f"--{name}={value}" for name, value in flags.items())]

    @property
    def delegate_options(self) -> str:
        """Returns the flags that decide on delegates, as the command has them."""
        return " ".join(f"--{name}={value}" for name, value in self._delegate_flags().items())

    def _delegate_flags(self) -> dict[str, str]:
        wanted = {
            "use_xnnpack": self.use_xnnpack,
            "use_gpu": self.use_gpu or None,
            "use_nnapi": self.use_nnapi or None,
        }
        return {name: str(on).lower() for name, on in wanted.items() if on is not None}

    def delegates(self) -> list[str]:
        """Returns the delegates that are asked for, as the binary names them."""
        asked = {"XNNPACK": self.use_xnnpack, "GPU": self.use_gpu, "NNAPI": self.use_nnapi}
        return [name for name, wanted in asked.items() if wanted]


def for_quick_ms(options: Options) -> Options:
    """Returns options for many graphs: a tenth to half a second each."""
    return replace(
        options,
        num_runs=_QUICK_RUNS,
        warmup_runs=_QUICK_WARMUP_RUNS,
        min_seconds=_QUICK_MIN_SECONDS,
        max_seconds=_QUICK_MAX_SECONDS,
        enable_op_profiling=False,
    )


def quick_ms(result: dict[str, Any]) -> float:
    """Returns the median of a result of `read`, or the mean where the median is too coarse.

    The binary counts in whole microseconds.
    """
    median, mean = result["median_ms"], result["mean_ms"]
    return mean if median is None or median < _COARSE_MS else median


def read(output: str, status: int, options: Options, name: str) -> dict[str, Any]:
    """Reads the figures of one execution.

    Args:
      output: standard output and standard error together.
      status: the exit status as a shell has it, 128 and the signal's number where one ended it.
      name: of the binary, for the messages.

    Returns:
      Milliseconds: init_ms (loading the graph and preparing it), first_ms, warmup_ms (mean),
      mean_ms, std_ms, min_ms, max_ms; median_ms, p5_ms and p95_ms, None where the binary is too
      old to tell; p10_ms and p90_ms, None, which none tells. Megabytes: init_memory_mb and
      overall_memory_mb, the growth up to then, and peak_memory_mb; None where it does not tell,
      and process_memory_mb, of the process without the graph, None.
      num_runs; warnings; delegates (name: completely or partially); with profiling, operators
      (type, name, mean_ms, percent, and whether it is within_delegate, whose own line has the time
      too).

    Raises:
      UserError: it could not be executed, failed, printed something else, or did not apply a
        delegate that was asked for.
    """
    lines = [_LOG_LEVEL.sub("", line.rstrip()) for line in output.splitlines() if line.strip()]
    if status:
        raise UserError(f"{name}: {_failure(lines, status)}")
    result = _timings(lines, name)
    result |= {key: _number(pattern, output) for key, pattern in _MEMORY.items()}
    result["process_memory_mb"] = None
    applied = {match[1]: match[2] for match in _APPLIED.finditer(output)}
    # A binary that cannot apply a delegate goes on without it, and its figures would be the CPU's.
    for delegate in options.delegates():
        if delegate not in applied:
            reason = _reason(lines, delegate)
            raise UserError(f"{name}: the {delegate} delegate was not applied{reason}")
    result["warnings"] = [
        f"the {delegate} delegate executes a part of the graph only, the CPU the rest"
        for delegate in options.delegates()
        if applied[delegate] == "partially"
    ]
    result["delegates"] = applied
    if options.enable_op_profiling:
        result["operators"] = _operators(lines)
        if not result["operators"]:
            result["warnings"].append("the binary prints no times of single operators")
    return result


def _failure(lines: list[str], status: int) -> str:
    for line in lines:
        if _WRONG_ABI.search(line):
            return f"not built for this device: {line.strip()}"
        if match := re.search(r"Failed to apply (\w+) delegate", line):
            return f"the {match[1]} delegate was not applied{_reason(lines, match[1])}"
    cause = f"died of signal {status - 128}" if status > 128 else f"failed with status {status}"
    if status == 128 + SIGKILL:
        cause += " (out of memory?)"
    return f"{cause}: {lines[-1].strip() if lines else 'no output'}"


def _reason(lines: list[str], delegate: str) -> str:
    """Returns the binary's reason for not applying a delegate, after a colon; may be empty."""
    for line in reversed(lines):
        if delegate in line and re.search(r"unsupported|not |fail|error", line, re.IGNORECASE):
            return f": {line.strip()}"
    return ""


def _timings(lines: list[str], name: str) -> dict[str, Any]:
    # One line for the warm-up, which may have no run, and one for the runs that count.
    blocks = [_statistics(line) for line in lines if line.startswith("count=")]
    text = "\n".join(lines)
    init_us = _number(rf"Inference timings in us: Init: ({_NUMBER})", text)
    # LiteRT's tool prints no such line.
    init_ms = init_us / 1e3 if init_us else _number(rf"Initialized session in ({_NUMBER})ms", text)
    if len(blocks) != 2 or not blocks[1] or init_ms is None:
        last = lines[-1].strip()[:100] if lines else "nothing"
        raise UserError(f"{name}: printed no timings as benchmark_model does, at the end {last!r}")
    warmup, runs = blocks
    return {
        "median_ms": runs["median"],
        "mean_ms": runs["avg"],
        "p5_ms": runs["p5"],
        "p10_ms": None,
        "p90_ms": None,
        "p95_ms": runs["p95"],
        "std_ms": runs["std"],
        "min_ms": runs["min"],
        "max_ms": runs["max"],
        "init_ms": init_ms,
        "first_ms": (warmup or runs)["first"],
        "warmup_ms": warmup.get("avg"),
        "num_runs": runs["count"],
    }


def _statistics(line: str) -> dict[str, Any]:
    """Reads "count=50 first=331 ... avg=3.3e+02 std=2 p5=327 median=330 p95=334" in ms.

    Empty where there was no run, or it is no such line. Of a single run, and of runs that all took
    the same time, the binary prints but "count=1 curr=331".
    """
    found = {key: float(value) for key, value in re.findall(rf"(\w+)=({_NUMBER})", line)}
    count = int(found.pop("count", 0))
    if not count or "curr" not in found:
        return {}
    if "avg" not in found:
        found = dict.fromkeys(_STATISTICS, found["curr"]) | {"std": 0.0}
    values = {name: found[name] / 1e3 if name in found else None for name in _STATISTICS}
    return values | {"count": count}


def _number(pattern: str, text: str) -> float | None:
    match = re.search(pattern, text)
    return float(match[1]) if match else None


def _operators(lines: list[str]) -> list[dict[str, Any]]:
    """Returns the rows of the run-order tables of the runs that count, without initialisation."""
    operators: list[dict[str, Any]] = []
    columns: list[str] | None = None
    of_runs = within_delegate = in_table = False
    for line in lines:
        cells = [cell.strip() for cell in line.split("\t")]
        if "Profiling Info for Regular Benchmark Runs" in line:
            of_runs = True
        elif line.startswith("Delegate internal"):
            within_delegate = True
        elif line.startswith("====="):
            in_table, columns = of_runs and "Run Order" in line, None
        elif in_table and "[node type]" in cells:
            columns = cells
        elif in_table and columns and len(cells) == len(columns):
            row = dict(zip(columns, cells, strict=True))
            operators.append(
                {
                    "type": row["[node type]"],
                    "name": row["[Name]"],
                    "mean_ms": float(row["[avg ms]"]),
                    "percent": float(row["[%]"].rstrip("%")),
                    "within_delegate": within_delegate or row["[Name]"].startswith("Delegate/"),
                }
            )
    return operators


def check_binary(binary: str | os.PathLike) -> Path:
    """Returns the absolute path of a binary; raises UserError where there is no such file."""
    path = Path(binary)
    if not path.is_file():
        raise UserError(f"{binary}: no such file; tflite/README.md says where benchmark_model is")
    return path.resolve()


def of_binary(program: Path, options: Options) -> dict[str, Any]:
    """Returns the fields of a provenance that say what was asked of which binary."""
    digest = sha256(program.read_bytes())
    return {
        "runtime": f"benchmark_model {digest[:12]}",
        "binary_sha256": digest,
        "delegate_options": options.delegate_options,
        "num_threads": options.num_threads,
    }

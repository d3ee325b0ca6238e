"""TFLite's own benchmark binary, `benchmark_model`: its command line and what it prints.

Nothing is run here; `native` runs it on this machine, `android` on a phone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mnasdet.errors import ConfigError, UserError

_NUMBER = r"[-+]?\d*\.?\d+(?:[eE][-+]?\d+)?"
_STATISTICS = ("median", "avg", "p5", "p95", "std", "min", "max")
_LOG_LEVEL = re.compile(r"^(?:VERBOSE|INFO|WARNING|ERROR): ")
_APPLIED = re.compile(r"Explicitly applied (\w+) delegate, .* (completely|partially) executed")
# What the shell, the kernel and Android's linker say of a file for another processor.
_WRONG_ABI = re.compile(
    r"not executable: |Exec format error|CANNOT LINK EXECUTABLE|cannot execute binary file"
)


@dataclass(frozen=True)
class Options:
    """What `benchmark_model` is asked for.

    Attributes:
      num_runs, warmup_runs: at least; the binary goes on until one second and half a second,
        respectively, are full.
      max_seconds: for the warm-up, and again for the runs; none is begun behind it.
      use_xnnpack: None leaves it to the binary, which newer ones answer with yes.
      enable_op_profiling: also times every operator, which slows the whole down a little.
      taskset: hexadecimal mask of the cores to run on ("f0": the upper four of eight); empty
        for all.
    """

    num_threads: int = 1
    num_runs: int = 50
    warmup_runs: int = 10
    max_seconds: float = 150.0
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

    def arguments(self, graph: str) -> list[str]:
        """The binary's arguments, unquoted."""
        flags: dict[str, Any] = {
            "graph": graph,
            "num_threads": self.num_threads,
            "num_runs": self.num_runs,
            "warmup_runs": self.warmup_runs,
            "max_secs": f"{self.max_seconds:g}",
            "enable_op_profiling": self.enable_op_profiling,
        }
        if self.use_xnnpack is not None:
            flags["use_xnnpack"] = self.use_xnnpack
        flags |= {name: True for name in ("use_gpu", "use_nnapi") if getattr(self, name)}
        return [
            f"--{name}={str(value).lower() if isinstance(value, bool) else value}"
            for name, value in flags.items()
        ]

    def delegates(self) -> list[str]:
        """Those asked for, as the binary names them."""
        asked = {"XNNPACK": self.use_xnnpack, "GPU": self.use_gpu, "NNAPI": self.use_nnapi}
        return [name for name, wanted in asked.items() if wanted]


def read(output: str, status: int, options: Options, name: str) -> dict[str, Any]:
    """The figures of one execution.

    Args:
      output: standard output and standard error together.
      status: the exit status.
      name: of the binary, for the messages.

    Returns:
      Milliseconds: init_ms (loading the graph and preparing it), first_ms, warmup_ms (mean),
      mean_ms, std_ms, min_ms, max_ms, and median_ms, p5_ms and p95_ms, None where the binary is
      too old to tell. Megabytes: init_memory_mb and overall_memory_mb, the growth up to then, and
      peak_memory_mb; None where it does not tell. num_runs; warnings; delegates (name: completely
      or partially); with profiling, operators (type, name, mean_ms, percent, and whether it is
      within_delegate, whose own line has the time too).

    Raises:
      UserError: it could not be executed, failed, printed something else, or did not apply a
        delegate that was asked for.
    """
    lines = [_LOG_LEVEL.sub("", line.rstrip()) for line in output.splitlines() if line.strip()]
    if status:
        raise UserError(f"{name}: {_failure(lines, status)}")
    result = _timings(lines, name) | _memory(lines)
    applied = _applied(lines)
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
    return result


def _failure(lines: list[str], status: int) -> str:
    for line in lines:
        if _WRONG_ABI.search(line):
            return f"not built for this device: {line.strip()}"
        if match := re.match(r"Failed to apply (\w+) delegate", line):
            return f"the {match[1]} delegate was not applied{_reason(lines, match[1])}"
    return f"failed with status {status}: {lines[-1].strip() if lines else 'no output'}"


def _applied(lines: Iterable[str]) -> dict[str, str]:
    matches = (_APPLIED.search(line) for line in lines)
    return {match[1]: match[2] for match in matches if match}


def _reason(lines: list[str], delegate: str) -> str:
    """What the binary says of a delegate that it did not apply, behind a colon; may be empty."""
    for line in reversed(lines):
        if delegate in line and re.search(r"unsupported|not |fail|error", line, re.IGNORECASE):
            return f": {line.strip()}"
    return ""


def _timings(lines: list[str], name: str) -> dict[str, Any]:
    # One line for the warm-up, which may have no run, and one for the runs that count.
    counts = [line for line in lines if line.startswith("count=")]
    summary = next((line for line in lines if line.startswith("Inference timings in us:")), "")
    pattern = rf"Init: ({_NUMBER}), First inference: ({_NUMBER}), Warmup \(avg\): ({_NUMBER}|-?nan)"
    match = re.search(pattern, summary)
    statistics = _statistics(counts[1]) if len(counts) == 2 else {}
    if not match or not statistics:
        last = lines[-1].strip()[:100] if lines else "nothing"
        raise UserError(
            f"{name}: printed no timings as benchmark_model of TFLite's Interpreter does, at the "
            f"end {last!r}"
        )
    init, first, warmup = map(float, match.groups())
    return {
        "median_ms": statistics["median"],
        "mean_ms": statistics["avg"],
        "p5_ms": statistics["p5"],
        "p95_ms": statistics["p95"],
        "std_ms": statistics["std"],
        "min_ms": statistics["min"],
        "max_ms": statistics["max"],
        "init_ms": init / 1e3,
        "first_ms": first / 1e3,
        "warmup_ms": warmup / 1e3 if warmup == warmup else None,
        "num_runs": int(statistics["count"]),
    }


def _statistics(line: str) -> dict[str, Any]:
    """The values of "count=50 first=331 ... avg=3.3e+02 std=2 p5=327 median=330 p95=334".

    Microseconds become milliseconds. Empty where it is no such line. Of a single run, and of runs
    that all took the same time, the binary prints but "count=1 curr=331".
    """
    found = {key: float(value) for key, value in re.findall(rf"(\w+)=({_NUMBER})", line)}
    if not found.get("count") or "curr" not in found:
        return {}
    count = found.pop("count")
    if "avg" not in found:
        found = dict.fromkeys(_STATISTICS, found["curr"]) | {"std": 0.0}
    values = {name: found[name] / 1e3 if name in found else None for name in _STATISTICS}
    return values | {"count": count}


def _memory(lines: list[str]) -> dict[str, float | None]:
    """Growth and peak in MB. Old binaries call the growth of the peak the peak footprint."""
    result: dict[str, float | None] = dict.fromkeys(
        ["init_memory_mb", "overall_memory_mb", "peak_memory_mb"]
    )
    growth = re.compile(
        r"(?:footprint delta from the start of the tool|Peak memory footprint) \(MB\): "
        rf"init=({_NUMBER}) overall=({_NUMBER})"
    )
    peak = re.compile(rf"peak memory footprint \(MB\) via periodic monitoring: ({_NUMBER})")
    for line in lines:
        if match := growth.search(line):
            result["init_memory_mb"], result["overall_memory_mb"] = map(float, match.groups())
        elif match := peak.search(line):
            result["peak_memory_mb"] = float(match[1])
    return result


def _operators(lines: list[str]) -> list[dict[str, Any]]:
    """The rows of the run-order tables of the runs that count, those of initialisation left out."""
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

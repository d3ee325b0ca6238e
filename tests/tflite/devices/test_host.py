"""mnasdet/tflite/host.py and its worker process."""

import hashlib
import os
import signal
import subprocess
import sys
import threading

import pytest

from mnasdet.errors import ConfigError, UserError
from mnasdet.tflite.devices.benchmark_model import Options
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.devices.factory import opened
from mnasdet.tflite.devices.host import Worker
from mnasdet.tflite.devices.repeats import Repeats


@pytest.fixture
def graph_path(small_graph, tmp_path):
    path = tmp_path / "small.tflite"
    path.write_bytes(small_graph)
    return path


def benchmark(graph, num_runs, **options):
    spec = DeviceSpec(options=Options(num_runs=num_runs), repeats=Repeats(2, 2), **options)
    with opened(spec) as device:
        return device.benchmark(graph)


def test_result_is_consistent(graph_path, small_graph):
    result = benchmark(graph_path, num_runs=25)
    assert result["num_runs"] == 50
    assert len(result["repeats_ms"]) == 2
    # The quartiles of two values lie half as far apart as the values.
    one, other = result["repeats_ms"]
    assert result["iqr_ms"] == pytest.approx(abs(one - other) / 2)
    order = ("min_ms", "p5_ms", "p10_ms", "median_ms", "p90_ms", "p95_ms", "max_ms")
    values = [result[name] for name in order]
    assert values[0] > 0
    assert values == sorted(values)
    assert result["warmup_runs"] == 10
    assert result["warmup_ms"] > 0
    assert result["std_ms"] >= 0
    assert result["init_ms"] > 0
    assert result["first_ms"] > 0
    assert result["model_bytes"] == len(small_graph)
    # TensorFlow alone takes several hundred.
    assert 10 < result["process_memory_mb"] <= result["peak_memory_mb"] < 250
    assert 0 <= result["init_memory_mb"] <= result["overall_memory_mb"] < 100
    provenance = result["provenance"]
    assert provenance["graph_sha256"] == hashlib.sha256(small_graph).hexdigest()
    assert provenance["device"] == "host"
    assert provenance["num_threads"] == 1


def test_worker_imports_no_tensorflow():
    code = "import sys, mnasdet.tflite.devices.benchmark_worker; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_one_worker_times_many_graphs_and_survives_a_bad_one(graph_path, tmp_path):
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(graph_path.read_bytes()[:100])
    arguments = {"num_threads": 1, "num_runs": 3, "warmup_runs": 0, "timeout_seconds": 60}
    with Worker() as worker:
        assert len(worker.run(graph_path, **arguments)["runs_ms"]) == 3
        with pytest.raises(UserError, match=r"bad\.tflite: the TFLite runtime cannot load it"):
            worker.run(bad, **arguments)
        stopped = worker.run(graph_path, **arguments | {"num_runs": 10**9}, max_seconds=0.01)
        assert 3 <= len(stopped["runs_ms"]) < 10**5


def test_hanging_worker_is_an_error(graph_path):
    with pytest.raises(UserError, match=r"no result within 0\.5 s"):
        benchmark(graph_path, num_runs=10**9, timeout_seconds=0.5)


def test_killed_worker_is_an_error(graph_path):
    with Worker() as worker:
        arguments = {"num_threads": 1, "num_runs": 10**9, "warmup_runs": 0, "timeout_seconds": 60}
        threading.Timer(1, os.kill, (worker.process.pid, signal.SIGKILL)).start()
        with pytest.raises(UserError, match=r"the benchmark's process died: SIGKILL \(out of mem"):
            worker.run(graph_path, **arguments)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cannot pin processes")
def test_taskset_pins_the_worker():
    core = min(os.sched_getaffinity(0))
    with Worker(f"{1 << core:x}") as worker:
        assert os.sched_getaffinity(worker.process.pid) == {core}


@pytest.mark.parametrize("mask", ["0", "0,1", "xyz", f"{1 << 5000:x}"])
def test_wrong_mask_says_what_is_allowed(mask):
    allowed = sum(1 << core for core in os.sched_getaffinity(0))
    with pytest.raises(
        ConfigError, match=rf"hexadecimal mask of cores is needed; all are {allowed:x}$"
    ):
        Worker(mask)


def test_missing_graph(tmp_path):
    with pytest.raises(UserError, match=r"none\.tflite: no such file"):
        benchmark(tmp_path / "none.tflite", 1)


def test_quick_measurement(tiny_graph_path, graph_path):
    with opened(DeviceSpec()) as device:
        tiny, small = device.quick_ms([tiny_graph_path, graph_path])
    assert 0 < tiny < small < 1000


def test_peak_memory_is_that_of_each_graph(tiny_graph_path, graph_path):
    arguments = {"num_threads": 1, "num_runs": 1, "warmup_runs": 0, "timeout_seconds": 60}
    with Worker() as worker:
        large = worker.run(graph_path, **arguments)
        tiny = worker.run(tiny_graph_path, **arguments)
    assert tiny["peak_mb"] - tiny["process_memory_mb"] < 1
    assert large["peak_mb"] - large["process_memory_mb"] > 1

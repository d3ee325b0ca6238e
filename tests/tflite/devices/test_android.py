"""mnasdet/tflite/android.py: through the real adb to phones of the tests' own.

Every phone of `make_phone` has to be clean at the end of a test, whatever happened in it.
"""

import hashlib
import json
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from mnasdet import files
from mnasdet.errors import UserError
from mnasdet.tflite.devices import adb, android
from mnasdet.tflite.devices.benchmark_model import Options
from mnasdet.tflite.devices.device import Cooling, DeviceSpec
from mnasdet.tflite.devices.factory import opened
from mnasdet.tflite.devices.repeats import Repeats
from tests.integration.commands import command, run
from tests.tflite.devices.test_benchmark_model import COMPLETE, NEW, NOT_AT_ALL, PARTIAL

TWICE = Repeats(min_repeats=2, max_repeats=2)


@pytest.fixture
def graph(tmp_path):
    """A file that is copied and never executed."""
    path = tmp_path / "a 'graph'.tflite"
    path.write_bytes(bytes(4) + b"TFL3")
    return path


@pytest.fixture
def script(tmp_path):
    """Makes binaries of a few lines of shell."""

    def write(body):
        path = tmp_path / "binary"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return write


def benchmark(graph, binary, options, repeats, **others):
    spec = DeviceSpec("adb", binary=str(binary), options=options, repeats=repeats, **others)
    with opened(spec) as device:
        return device.benchmark(graph)


def printing(output):
    return f"cat <<'END'\n{output}\nEND"


def wait_for(path):
    for _ in range(300):
        if path.exists() and path.read_text():
            return path.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{path} does not appear")


def alive(pid):
    """Whether it runs; one that has ended may wait for its parent to notice."""
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


def test_graph_is_measured(phone, tiny_graph_path, stand_in, tmp_path):
    output = tmp_path / "benchmark.json"
    done = run(
        "benchmark_tflite", f"--graph={tiny_graph_path}", "--device=adb", "--num_runs=20",
        f"--benchmark_binary={stand_in}", "--repeats=2", "--max_repeats=2", "--taskset=0x1",
        "--num_threads=2", f"--output={output}", "--format=json",
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert result == files.read_json(output, "result")
    assert result["num_runs"] == 40
    assert result["warmup_runs"] == 10
    assert 0 <= result["min_ms"] <= result["p5_ms"] <= result["median_ms"] <= result["max_ms"]
    assert result["init_ms"] > 0
    assert (result["init_memory_mb"], result["overall_memory_mb"]) == (1.25, 2.5)
    assert len(result["repeats_ms"]) == 2
    assert result["model_bytes"] == tiny_graph_path.stat().st_size
    provenance = result["provenance"]
    assert provenance.pop("date") > "2020"
    condition = {
        "temperature_c": 31.5,
        "battery_temperature_c": 30.5,
        "battery_percent": 87,
        "governors": ["performance", "schedutil"],
    }
    assert provenance == {
        "device": "adb",
        "serial": phone.serial,
        "manufacturer": "Acme",
        "model": "Phone 7",
        "cpu": None,
        "soc": "AC7",
        "operating_system": "Android 14",
        "build": "acme/phone7:14/release-keys",
        "abis": ["arm64-v8a", "armeabi-v7a"],
        "governors": ["performance", "schedutil"],
        "python": None,
        "before": condition,
        "after": condition,
        "runtime": f"benchmark_model {hashlib.sha256(stand_in.read_bytes()).hexdigest()[:12]}",
        "binary_sha256": hashlib.sha256(stand_in.read_bytes()).hexdigest(),
        "delegate_options": "",
        "num_threads": 2,
        "taskset": "0x1",
        "graph": str(tiny_graph_path),
        "graph_sha256": hashlib.sha256(tiny_graph_path.read_bytes()).hexdigest(),
    }


def test_binary_gets_its_arguments_and_its_cores(phone, graph, script, tmp_path):
    seen = tmp_path / "seen"
    binary = script(f"{{ taskset -p $$; echo $PWD $*; }} >{seen}\n{printing(NEW)}")
    benchmark(graph, binary, Options(num_threads=3, taskset="1", use_nnapi=False), TWICE)
    cores, arguments = seen.read_text().splitlines()
    assert cores.endswith("mask: 1")
    folder, *flags = arguments.split()
    assert Path(folder).parent == phone.tmp
    assert flags == Options(num_threads=3).command("", "graph.tflite")[1:]


def test_another_folder_with_blanks(phone, graph, script):
    folder = "/data/local/tmp/a b"
    (phone.tmp / "a b").mkdir()
    benchmark(graph, script(printing(NEW)), Options(), TWICE, device_folder=folder)
    assert list((phone.tmp / "a b").iterdir()) == []
    (phone.tmp / "a b").rmdir()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "echo './benchmark_model: not executable: 64-bit ELF file'; exit 126",
            "not built for thi",
        ),
        ("echo 'CANNOT LINK EXECUTABLE: library x'; exit 1", "not built for this device: CANNOT"),
        ("head -c 999 /dev/urandom", "printed no timings as benchmark_model does, at the"),
        ("kill -SEGV $$", "died of signal 11: "),
        (printing(NEW), "the GPU delegate was not applied"),
        (printing(NOT_AT_ALL.format("GPU") + NEW), "the GPU delegate was not applied: Though GPU"),
    ],
)
def test_failures_are_one_line(phone, graph, script, body, message):
    with pytest.raises(UserError, match=f"binary on device {phone.serial}: {message}") as raised:
        benchmark(graph, script(body), Options(use_gpu=True), TWICE)
    assert "\n" not in str(raised.value)


def test_partial_delegate_is_a_warning(phone, graph, script):
    output = PARTIAL.format("GPU") + COMPLETE.format("XNNPACK") + NEW
    options = Options(use_gpu=True, use_xnnpack=True)
    result = benchmark(graph, script(printing(output)), options, TWICE)
    assert len(result["warnings"]) == 1
    assert result["delegates"] == {"GPU": "partially", "XNNPACK": "completely"}


def test_missing_files(phone, graph, script, tmp_path):
    with pytest.raises(UserError, match=r"none: no such file; tflite/README.md says where"):
        benchmark(graph, tmp_path / "none", Options(), TWICE)
    with pytest.raises(UserError, match=r"none: no such file; a TFLite graph is needed"):
        benchmark(tmp_path / "none", script("true"), Options(), TWICE)


def test_full_disk(phone, graph, script):
    phone.free_bytes = 5
    with pytest.raises(UserError, match="cannot copy binary to it: .*No space left on device"):
        benchmark(graph, script("true"), Options(), TWICE)


def test_folder_that_is_not_there(phone, graph, script):
    with pytest.raises(UserError, match=r"cannot make a folder in /data/a: .*cd"):
        benchmark(graph, script("true"), Options(), TWICE, device_folder="/data/a")


def test_hanging_binary_is_killed(phone, graph, script, tmp_path):
    binary = script(f"echo $$ >{tmp_path}/running; exec sleep 60")
    with pytest.raises(UserError, match=r"adb shell hangs, no end within 1 s"):
        benchmark(graph, binary, Options(), TWICE, timeout_seconds=1)
    assert not alive(int((tmp_path / "running").read_text()))


def test_device_that_drops_off_and_comes_back(phone, graph, script, tmp_path):
    # Hangs once: what was started before the loss must not disturb what is started behind it.
    running = tmp_path / "running"
    binary = script(
        f"[ -e {running} ] || {{ echo $$ >{running}; exec sleep 60; }}\n{printing(NEW)}"
    )

    def pull_the_cable():
        wait_for(running)
        phone.switch_off()
        time.sleep(0.5)
        phone.switch_on_again()

    thread = threading.Thread(target=pull_the_cable)
    thread.start()
    result = benchmark(graph, binary, Options(), TWICE)
    thread.join()
    assert result["repeats_ms"] == [9.2, 9.2]
    assert not alive(int(running.read_text()))


def test_device_that_stays_away(phone, graph, script, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(adb, "_RECONNECT_SECONDS", 0.5)
    running = tmp_path / "running"
    binary = script(f"echo $$ >{running}; exec sleep 60")

    def pull_the_cable():
        wait_for(running)
        phone.switch_off()

    thread = threading.Thread(target=pull_the_cable)
    thread.start()
    with pytest.raises(UserError, match=r"lost the connection, and not back within 0\.5 s"):
        benchmark(graph, binary, Options(), TWICE)
    thread.join()
    (left,) = phone.tmp.iterdir()
    assert f"/data/local/tmp/{left.name} is still there" in caplog.text
    os.kill(int(running.read_text()), signal.SIGKILL)
    # Not only -r: the phone removes files of a benchmark that has ended, at the same time.
    subprocess.run(["rm", "-rf", left], check=True)
    phone.switch_on_again()


def test_interrupt_leaves_a_clean_phone(phone, graph, script, tmp_path):
    running = tmp_path / "running"
    binary = script(f"echo $$ >{running}; exec sleep 60")
    words = command(
        "benchmark_tflite", f"--graph={graph}", "--device=adb", f"--benchmark_binary={binary}"
    )
    # Tests that run in the background ignore the signal, and so would what they start.
    with subprocess.Popen(
        words,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        pid = int(wait_for(running))
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "error: interrupted\n"
    assert process.returncode == 1
    assert not alive(pid)


def test_hot_phone_is_left_to_cool_down(phone, graph, script, monkeypatch):
    temperatures = [52.0, 45.0, 39.5]
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        phone.set_temperature(temperatures.pop(0))

    phone.set_temperature(60.0)
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(android, "time", clock)
    result = benchmark(graph, script(printing(NEW)), Options(), TWICE)
    assert waits == [5.0, 5.0, 5.0]
    assert result["provenance"]["before"]["temperature_c"] == 60.0
    assert result["provenance"]["after"]["temperature_c"] == 39.5


def test_phone_that_does_not_get_colder_is_measured_as_it_is(phone, graph, script, monkeypatch):
    waits = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=waits.append)
    monkeypatch.setattr(android, "time", clock)
    phone.set_temperature(60.0)
    benchmark(graph, script(printing(NEW)), Options(), TWICE)
    assert waits == [5.0, 5.0]


def test_cooling_down_has_an_end(phone, graph, script):
    phone.set_temperature(60.0)
    cooling = Cooling(max_seconds=0.0)
    start = time.monotonic()
    benchmark(graph, script(printing(NEW)), Options(), TWICE, cooling=cooling)
    assert time.monotonic() - start < 5


def test_two_devices_need_a_serial_number(make_phone, graph, script):
    one, other = make_phone(), make_phone()
    binary = script(printing(NEW))
    done = run(
        "benchmark_tflite", f"--graph={graph}", f"--benchmark_binary={binary}", "--device=adb",
        status=1,
    )  # fmt: skip
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: 2 Android devices: choose by --device=adb:SERIAL, ")
    assert one.serial in line
    assert other.serial in line
    done = run(
        "benchmark_tflite", f"--graph={graph}", f"--benchmark_binary={binary}",
        f"--device=adb:{other.serial}",
    )  # fmt: skip
    assert f"serial = {other.serial}" in done.stdout.splitlines()


def test_several_phones_at_once(make_phone, graph, script):
    serials = [make_phone().serial, make_phone().serial]
    binary = script(f"sleep 0.5\n{printing(NEW)}")

    def measure(_):
        result = benchmark(graph, binary, Options(), TWICE, serials=serials)
        return result["provenance"]["serial"]

    start = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        used = list(threads.map(measure, range(4)))
    assert sorted(used) == sorted(2 * serials)
    # Two on each phone, of a second each, one after the other.
    assert time.monotonic() - start > 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device=adb"], "--device=adb: needs --benchmark_binary, TFLite's benchmark_model for"),
        (["--device=phone"], "--device=phone: host, adb or adb:SERIAL is needed"),
        (["--device=adb:"], "--device=adb:: host, adb or adb:SERIAL is needed"),
        (["--use_gpu"], "--use_gpu: needs --benchmark_binary"),
        (["--max_temperature_c=30", "--benchmark_binary=b"], "--max_temperature_c: needs --device"),
    ],
)
def test_flags_that_do_not_fit_together(graph, flags, message):
    done = run("benchmark_tflite", f"--graph={graph}", *flags, status=1)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"error: {message}")

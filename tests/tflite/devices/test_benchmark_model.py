"""mnasdet/tflite/benchmark_model.py and native.py: the binary's arguments and what it prints."""

import itertools

import pytest

from mnasdet.errors import ConfigError, UserError
from mnasdet.tflite.devices.benchmark_model import Options, read
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.devices.factory import opened
from mnasdet.tflite.devices.repeats import Repeats, repeated

# As binaries of 2024 print it.
NEW = """INFO: STARTING!
INFO: Num threads: [1]
INFO: Loaded model graph.tflite
INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
INFO: The input model file size (MB): 4.2761
INFO: Initialized session in 12.5ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if ...
INFO: count=5 first=125000 curr=112537 min=111758 max=125000 avg=115344 std=4959 p5=1 median=2 p95=3

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if ...
INFO: count=52 first=9100 curr=9300 min=9000 max=9900 avg=9250.5 std=130 p5=9050 median=9200 p95=9800

INFO: Inference timings in us: Init: 12500, First inference: 125000, Warmup (avg): 115344, Inference (avg): 9250.5
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE
INFO: Memory footprint delta from the start of the tool (MB): init=14.4414 overall=14.8164
INFO: Overall peak memory footprint (MB) via periodic monitoring: 93.25
"""  # noqa: E501

# As those of 2020 do, of a slow graph: scientific notation, one warm-up run, no percentiles.
OLD = """STARTING!
Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding ...
count=1 curr=11403859

Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding ...
count=50 first=1.5e+06 curr=1371100 min=1.36e+06 max=1500000 avg=1.3756e+06 std=9000

Inference timings in us: Init: 13386, First inference: 11403859, Warmup (avg): 1.14039e+07, Inference (avg): 1.3756e+06
Peak memory footprint (MB): init=0 overall=12.8672
"""  # noqa: E501

HEADER = "[node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]"
ROW = "\t{}\t    0.204\t    {}\t {}%\t  9.000%\t     0.000\t        1\t{}"
PROFILE = "\n".join(
    [
        "INFO: Profiling Info for Benchmark Initialization:",
        "============================== Run Order ==============================",
        f"\t             {HEADER}",
        ROW.format("AllocateTensors", "5.061", "100.000", "AllocateTensors/0"),
        "",
        "INFO: Operator-wise Profiling Info for Regular Benchmark Runs:",
        "============================== Run Order ==============================",
        f"\t             {HEADER}",
        ROW.format("   CONV_2D", "1.250", "62.500", "[a/Relu6, b]:0"),
        ROW.format("Conv (NHWC, F32) DWConv", "0.750", "37.500", "Delegate/Conv (NHWC) DWConv:1"),
        "",
        "============================== Top by Computation Time ==============================",
        f"\t             {HEADER}",
        ROW.format("   CONV_2D", "1.250", "62.500", "[a/Relu6, b]:0"),
        "",
        "Number of nodes executed: 2",
        "Timings (microseconds): count=50 first=2100 curr=2000 min=1990 max=2100 avg=2000 std=7",
        "Delegate internal: ",
        "============================== Run Order ==============================",
        f"\t             {HEADER}",
        ROW.format("   Sigmoid", "0.010", "100.000", "Sigmoid:0"),
    ]
)

COMPLETE = (
    "INFO: Explicitly applied {} delegate, and the model graph will be completely executed by the "
    "delegate.\n"
)
PARTIAL = (
    "INFO: Explicitly applied {} delegate, and the model graph will be partially executed by the "
    "delegate w/ 3 delegate kernels.\n"
)
NOT_AT_ALL = (
    "INFO: Though {} delegate is explicitly applied, the model graph will not be executed by the "
    "delegate.\n"
)


def test_command():
    assert Options(num_threads=4, max_seconds=2).command("b", "a b.tflite") == [
        "b", "--graph=a b.tflite", "--num_threads=4", "--num_runs=50", "--warmup_runs=10",
        "--max_secs=2",
    ]  # fmt: skip
    options = Options(use_xnnpack=False, use_gpu=True, use_nnapi=True, enable_op_profiling=True)
    assert options.command("b", "a")[-4:] == [
        "--use_xnnpack=false", "--use_gpu=true", "--use_nnapi=true", "--enable_op_profiling=true",
    ]  # fmt: skip
    assert Options(taskset="0xF0").command("b", "a")[:3] == ["taskset", "F0", "b"]


@pytest.mark.parametrize("mask", ["0", "0,1", "f0; rm -rf /", "-1"])
def test_wrong_mask_is_refused(mask):
    with pytest.raises(ConfigError, match="a hexadecimal mask of cores is needed, such as f0$"):
        Options(taskset=mask)


def test_new_output():
    assert read(NEW, 0, Options(), "b") == {
        "median_ms": 9.2,
        "mean_ms": 9.2505,
        "p5_ms": 9.05,
        "p10_ms": None,
        "p90_ms": None,
        "p95_ms": 9.8,
        "std_ms": 0.13,
        "min_ms": 9.0,
        "max_ms": 9.9,
        "init_ms": 12.5,
        "first_ms": 125.0,
        "warmup_ms": 115.344,
        "num_runs": 52,
        "init_memory_mb": 14.4414,
        "overall_memory_mb": 14.8164,
        "peak_memory_mb": 93.25,
        "process_memory_mb": None,
        "warnings": [],
        "delegates": {},
    }


def test_old_output():
    result = read(OLD, 0, Options(), "b")
    assert result["mean_ms"] == pytest.approx(1375.6)
    assert result["first_ms"] == 11403.859
    assert result["warmup_ms"] == 11403.859
    assert (result["median_ms"], result["p5_ms"], result["p95_ms"]) == (None, None, None)
    assert (result["init_memory_mb"], result["overall_memory_mb"]) == (0.0, 12.8672)
    assert result["peak_memory_mb"] is None


@pytest.mark.parametrize("line", ["count=1 curr=500", "count=3 curr=500(all same)"])
def test_runs_that_all_took_the_same_time(line):
    output = NEW.replace(next(row for row in NEW.splitlines() if "count=52" in row), line)
    result = read(output, 0, Options(), "b")
    assert result["num_runs"] == int(line[6])
    assert result["std_ms"] == 0
    names = ["median_ms", "mean_ms", "min_ms", "max_ms", "p5_ms", "p95_ms"]
    assert {result[name] for name in names} == {0.5}


def test_no_warmup_runs():
    output = NEW.replace("count=5 first=125000 curr=112537", "count=0 x=1")
    result = read(output, 0, Options(), "b")
    assert result["warmup_ms"] is None
    assert result["first_ms"] == 9.1


def test_output_of_the_tool_for_compiled_models():
    output = "\n".join(
        line for line in NEW.splitlines() if "in us" not in line and "footprint" not in line
    )
    output += """
INFO: [./litert/tools/benchmark_litert_model.h:88] Inference (avg):      9.25 ms (52 runs)
INFO: [./litert/tools/benchmark_litert_model.h:114] Init footprint:       8.94 MB
INFO: [./litert/tools/benchmark_litert_model.h:116] Overall footprint:    11.51 MB
INFO: [./litert/tools/benchmark_litert_model.h:120] Peak memory:          20.25 MB
"""
    result = read(output, 0, Options(), "b")
    memory = {"init_memory_mb": 8.94, "overall_memory_mb": 11.51, "peak_memory_mb": 20.25}
    assert result == read(NEW, 0, Options(), "b") | memory


def test_operators_are_those_of_the_runs_in_order():
    operators = read(NEW + PROFILE, 0, Options(enable_op_profiling=True), "b")["operators"]
    assert [tuple(row.values()) for row in operators] == [
        ("CONV_2D", "[a/Relu6, b]:0", 1.25, 62.5, False),
        ("Conv (NHWC, F32) DWConv", "Delegate/Conv (NHWC) DWConv:1", 0.75, 37.5, True),
        ("Sigmoid", "Sigmoid:0", 0.01, 100.0, True),
    ]


def test_no_operators_is_a_warning():
    result = read(NEW, 0, Options(enable_op_profiling=True), "b")
    assert result["operators"] == []
    assert result["warnings"] == ["the binary prints no times of single operators"]


def test_operators_of_tables_with_a_start_column():
    table = PROFILE.replace("\t  [first]", "\t  [start]\t  [first]")
    table = table.replace("\t    0.204", "\t    0.066\t    0.204")
    operators = read(NEW + table, 0, Options(enable_op_profiling=True), "b")["operators"]
    assert [row["mean_ms"] for row in operators] == [1.25, 0.75, 0.01]


def test_complete_and_partial_delegates():
    output = COMPLETE.format("XNNPACK") + PARTIAL.format("GPU") + NEW
    result = read(output, 0, Options(use_xnnpack=True, use_gpu=True), "b")
    assert result["delegates"] == {"XNNPACK": "completely", "GPU": "partially"}
    assert result["warnings"] == [
        "the GPU delegate executes a part of the graph only, the CPU the rest"
    ]


@pytest.mark.parametrize(
    ("output", "status", "reason"),
    [
        (NEW, 0, ""),
        (NOT_AT_ALL.format("GPU") + NEW, 0, ": Though GPU delegate is explicitly applied, .* not"),
        ("GPU acceleration is unsupported here.\n" + NEW, 0, ": GPU acceleration is unsupported"),
        ("ERROR: Failed to apply GPU delegate.\nBenchmarking failed.", 1, ": Failed to apply GPU"),
    ],
)
def test_delegate_that_was_not_applied_is_an_error(output, status, reason):
    message = f"^b: the GPU delegate was not applied{reason}"
    with pytest.raises(UserError, match=message):
        read(output, status, Options(use_gpu=True), "b")


@pytest.mark.parametrize(
    ("output", "status", "message"),
    [
        ("/system/bin/sh: ./b: not executable: 64-bit ELF file\n", 126, "not built for this devi"),
        ("sh: ./b: Exec format error", 126, "not built for this device: sh: ./b: Exec format err"),
        ('CANNOT LINK EXECUTABLE "./b": library "x.so"', 1, "not built for this device: CANNOT LI"),
        ("ERROR: Failed to mmap model\nBenchmarking failed.\n", 1, "failed with status 1: Benchm"),
        ("Loaded\n", 139, "died of signal 11: Loaded"),
        ("", 137, r"died of signal 9 \(out of memory\?\): no output"),
        ("\x00\x7f%&/\ncount=x\n", 0, "printed no timings .* at the end 'count=x'"),
        ("", 0, "printed no timings .* at the end 'nothing'"),
        (NEW.replace("Init", ""), 0, "printed no timings"),
        (NEW.replace("count=52", "count=many"), 0, "printed no timings"),
    ],
)
def test_failures_are_one_line(output, status, message):
    with pytest.raises(UserError, match=f"^b: {message}") as raised:
        read(output, status, Options(), "b")
    assert "\n" not in str(raised.value)


def executions(*medians_ms):
    """Gives these one after the other, again from the first."""
    line = next(row for row in NEW.splitlines() if "count=52" in row)
    outputs = [
        read(
            NEW.replace(line, line.replace("median=9200", f"median={1000 * ms}")), 0, Options(), ""
        )
        for ms in medians_ms
    ]
    return itertools.cycle(outputs).__next__


def test_repeats_end_when_they_agree():
    result = repeated(executions(100, 101, 102), Repeats(min_repeats=3))
    assert result["repeats_ms"] == [100, 101, 102]
    assert result["median_ms"] == 101
    assert result["num_runs"] == 3 * 52
    # Percentiles by hand: 100.2 and 101.8.
    assert result["spread"] == pytest.approx(1.6 / 101)
    assert result["iqr_ms"] == 1
    assert not result["noisy"]


def test_repeats_that_do_not_agree_are_noisy():
    result = repeated(executions(100, 200), Repeats(max_repeats=6))
    assert len(result["repeats_ms"]) == 6
    assert result["noisy"]


def runs(median_ms, p10_ms, p90_ms, p5_ms=None, p95_ms=None):
    """One execution with these figures of its runs."""
    figures = read(NEW, 0, Options(), "")
    named = {"median_ms": median_ms, "p10_ms": p10_ms, "p90_ms": p90_ms}
    return figures | named | {"p5_ms": p5_ms, "p95_ms": p95_ms}


@pytest.mark.parametrize(
    ("executions", "run_spread", "noisy"),
    [
        # All medians agree, though the machine was half as fast in most of the runs.
        ([runs(63.2, 38.0, 75.8)] * 3, 37.8 / 63.2, True),
        # The medians differ by 0.057, a little more than it takes to stop early.
        ([runs(ms, 9.59, 10.1) for ms in (9.5, 9.8, 10.2)], 0.51 / 9.8, False),
        ([runs(ms, ms - 0.1, ms + 0.1) for ms in (9.0, 10.0, 11.0)], 0.2 / 10.0, True),
        ([runs(10.0, 9.6, 10.5)] * 2, 0.09, False),
        ([runs(10.0, 9.6, 10.7)] * 2, 0.11, True),
        ([runs(10.0, None, None, 9.5, 10.7)] * 2, 0.12, True),
        ([runs(10.0, None, None)] * 2, None, False),
    ],
)
def test_noisy_is_what_cannot_be_relied_on(executions, run_spread, noisy):
    count = len(executions)
    result = repeated(itertools.cycle(executions).__next__, Repeats(count, max_repeats=count))
    assert result["run_spread"] == (run_spread and pytest.approx(run_spread))
    assert result["noisy"] == noisy


def test_repeats_have_to_be_at_least_two():
    with pytest.raises(ConfigError, match="--repeats=1, --max_repeats=10"):
        Repeats(min_repeats=1)


@pytest.fixture
def script(tmp_path):
    def write(body):
        path = tmp_path / "benchmark_model"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def any_graph(tmp_path):
    path = tmp_path / "a b.tflite"
    path.write_bytes(bytes(4) + b"TFL3")
    return path


def benchmark(graph, binary, options, repeats, **others):
    spec = DeviceSpec(binary=str(binary), options=options, repeats=repeats, **others)
    with opened(spec) as device:
        return device.benchmark(graph)


def test_binary_on_this_machine(tiny_graph_path, stand_in):
    options = Options(num_runs=20, warmup_runs=2, taskset="1")
    result = benchmark(tiny_graph_path, stand_in, options, Repeats(2, 2))
    assert 0 <= result["min_ms"] <= result["median_ms"] <= result["max_ms"]
    assert result["num_runs"] == 40
    assert result["model_bytes"] == tiny_graph_path.stat().st_size
    assert result["provenance"]["device"] == "host"
    assert result["provenance"]["runtime"].startswith("benchmark_model ")


def test_binary_that_dies(script, any_graph):
    with pytest.raises(UserError, match=r"benchmark_model: died of signal 6: Loaded$"):
        benchmark(any_graph, script("echo Loaded; kill -ABRT $$"), Options(), Repeats())


def test_binary_that_hangs(script, any_graph):
    with pytest.raises(UserError, match=r"model: no end within 0\.2 s; it hangs"):
        benchmark(any_graph, script("sleep 9"), Options(), Repeats(), timeout_seconds=0.2)


def test_file_that_is_no_program(script, any_graph):
    binary = script("")
    binary.write_bytes(b"\x7fELF" + bytes(60))
    with pytest.raises(UserError, match=r"benchmark_model: cannot be executed: Exec format error"):
        benchmark(any_graph, binary, Options(), Repeats())


def test_missing_binary(any_graph, tmp_path):
    with pytest.raises(UserError, match=r"none: no such file; tflite/README.md says where"):
        benchmark(any_graph, tmp_path / "none", Options(), Repeats())

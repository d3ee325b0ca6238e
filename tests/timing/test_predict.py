"""The time of whole models in TensorFlow, measured by a process of its own."""

import os
import signal

import pytest
from google.protobuf import text_format

from mnasdet import config
from mnasdet.errors import UserError
from mnasdet.protos import pipeline_pb2
from mnasdet.tflite.devices.benchmark_model import Options
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.devices.repeats import Repeats
from mnasdet.timing.predict import PredictTimer
from tests import two_stage_config


def check(result):
    order = ("min_ms", "p10_ms", "median_ms", "p90_ms", "max_ms")
    values = [result[name] for name in order]
    assert values[0] > 0
    assert values == sorted(values)
    assert result["num_runs"] == 10
    assert len(result["repeats_ms"]) == 2
    assert result["iqr_ms"] >= 0
    assert result["run_spread"] >= 0
    # Building takes longer than a run.
    assert result["init_ms"] > result["median_ms"]
    assert result["provenance"]["device"] == "host"
    assert result["provenance"]["runtime"].startswith("tensorflow 2")
    assert result["provenance"]["num_threads"] == 1


def test_models_of_both_kinds_are_timed_and_a_lost_process_is_replaced(tiny_pipeline):
    pipeline = text_format.Parse(two_stage_config.text(), pipeline_pb2.TrainEvalPipelineConfig())
    two_stages, one_stage = config.resolve(pipeline), config.resolve(tiny_pipeline)
    spec = DeviceSpec(options=Options(num_threads=1, num_runs=5), repeats=Repeats(2, 2))
    timer = PredictTimer(spec)
    with timer.held() as benchmark:
        check(benchmark(two_stages))
    lost = timer._process.pid
    assert lost != os.getpid()
    os.kill(lost, signal.SIGKILL)
    with (
        pytest.raises(UserError, match=r"predict of tiny_cascade: .* died: SIGKILL \(out of mem"),
        timer.held() as benchmark,
    ):
        benchmark(two_stages)
    with timer.held() as benchmark:
        check(benchmark(one_stage))
    assert timer._process.pid != lost
    timer.close()
    assert timer._process is None

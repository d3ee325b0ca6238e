"""Where the search's latencies come from."""

import logging
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from mnasdet.errors import UserError
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.graph import Graph, Network
from mnasdet.networks.hyperparams import Kernel
from mnasdet.protos import pipeline_pb2, search_pb2
from mnasdet.search import latency, meters
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.latency.latency_table import LatencyTable
from mnasdet.tflite.latency.layers import layers


def convolution(channels):
    """A network of one layer, with what a latency source reads of a candidate."""
    b = Builder()
    x = b.conv2d(b.input((8, 8, 3)), channels, 3, kernel=Kernel(), name="conv")
    return measurable(Network({"graph": Graph({"x": x})}))


def measurable(network):
    return SimpleNamespace(network=network, sheet=cost_sheet(network), key=network.key())


def test_multiply_adds_are_counted_in_billions():
    source = latency.from_config(search_pb2.LatencyConfig(multiply_adds={}))
    assert not source.has_to_measure([convolution(4)])
    assert source.costs([convolution(4), convolution(8)]) == pytest.approx(
        [8 * 8 * 27 * 4 / 1e9, 8 * 8 * 27 * 8 / 1e9]
    )


def test_a_given_table_is_never_added_to(tmp_path):
    (layer,) = layers(convolution(4).sheet)
    table = LatencyTable({"device": "phone"}, {layer.key: 3.0}, scale=2.0, constant_ms=0.5)
    table.save(tmp_path / "table.textproto")
    source = latency.from_config(
        search_pb2.LatencyConfig(latency_table={"path": str(tmp_path / "table.textproto")})
    )
    assert source.costs([convolution(4)]) == [6.5]
    assert not source.has_to_measure([convolution(8)])
    with pytest.raises(UserError, match="no latency for layer"):
        source.costs([convolution(8)])


def test_this_machines_table_measures_what_it_lacks_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MNASDET_CACHE_DIR", str(tmp_path))
    source = latency.from_config(search_pb2.LatencyConfig())
    assert source.has_to_measure([convolution(4)])
    (measured,) = source.costs([convolution(4)])
    assert not source.has_to_measure([convolution(4)])
    assert source.has_to_measure([convolution(4), convolution(8)])
    # Another search finds it measured.
    another = latency.from_config(search_pb2.LatencyConfig())
    assert not another.has_to_measure([convolution(4)])
    assert another.costs([convolution(4)]) == [measured]


def test_whole_networks_are_measured_here_once():
    source = latency.from_config(search_pb2.LatencyConfig(host={"num_runs": 5}))
    assert source.has_to_measure([convolution(4)])
    one, other, again = source.costs([convolution(4), convolution(64), convolution(4)])
    assert 0 < one < 1000
    assert 0 < other < 1000
    assert again == one
    assert not source.has_to_measure([convolution(64), convolution(4)])
    assert source.costs([convolution(64)]) == [other]


def test_whole_networks_are_measured_on_a_phone(phone, stand_in, caplog):
    config = search_pb2.LatencyConfig(
        adb={"benchmark_binary": str(stand_in), "serial": [phone.serial], "num_runs": 20}
    )
    source = latency.from_config(config)
    assert source.has_to_measure([convolution(64)])
    with caplog.at_level(logging.WARNING):
        (measured,) = source.costs([convolution(64)])
    assert 0 <= measured < 1000
    assert not source.has_to_measure([convolution(64)])
    assert list(phone.tmp.iterdir()) == []


def test_detection_is_timed_once_for_each_network(monkeypatch, caplog):
    """Tests that a search records the median, and the spread of the executions."""
    asked = []

    class Timer:
        def __init__(self, spec):
            assert (spec.options.num_threads, spec.options.num_runs) == (2, 7)

        @contextmanager
        def held(self):
            yield self.benchmark

        def benchmark(self, blueprint):
            asked.append(blueprint)
            return {"median_ms": 8.0 * blueprint, "iqr_ms": 0.5, "noisy": blueprint > 1}

    monkeypatch.setattr(meters, "PredictTimer", Timer)
    one, other = (
        SimpleNamespace(blueprint=number, key=f"key {number}", network=None) for number in (1, 2)
    )
    predict = {"num_threads": 2, "num_runs": 7}
    source = latency.from_config(search_pb2.LatencyConfig(predict=predict))
    assert source.unit == "ms"
    assert source.figures(one) == {}
    assert source.has_to_measure([one])
    with caplog.at_level(logging.WARNING):
        assert source.costs([one, other, one]) == [8.0, 16.0, 8.0]
    assert caplog.text.count("are noisy") == 1
    assert not source.has_to_measure([one, other])
    assert source.costs([other]) == [16.0]
    assert asked == [1, 2]
    assert source.figures(one) == {"latency_iqr_ms": 0.5}


def test_what_measures_the_networks_of_a_frontier():
    pipeline = pipeline_pb2.TrainEvalPipelineConfig()
    pipeline.model.ssd.SetInParent()
    source = pipeline.search_config.latency
    source.multiply_adds.SetInParent()
    assert isinstance(latency.meter(pipeline), meters.TfliteMeter)
    source.predict.SetInParent()
    assert isinstance(latency.meter(pipeline), meters.PredictMeter)
    # Two-stage detectors have no TFLite file.
    source.multiply_adds.SetInParent()
    pipeline.model.faster_rcnn.SetInParent()
    assert isinstance(latency.meter(pipeline), meters.PredictMeter)


def test_the_machine_that_times_detection_is_known():
    found = latency.identity(search_pb2.LatencyConfig(predict={"num_threads": 3}))
    assert found["device"] == "host"
    assert found["num_threads"] == 3
    assert found["runtime"].startswith("tensorflow 2")


def test_noisy_networks_are_told_of(phone, tmp_path, caplog):
    """A binary whose executions take 1, 2, 3 ... ms."""
    binary, count = tmp_path / "benchmark_model", tmp_path / "count"
    line = "count=9 first=$n curr=$n min=$n max=$n avg=$n std=0 p5=$n median=$n p95=$n"
    binary.write_text(
        f"#!/bin/sh\necho >>{count}; n=$(wc -l <{count})000\n"
        f'echo "{line}"; echo "{line}"; echo "Inference timings in us: Init: 5"\n'
    )
    source = latency.from_config(search_pb2.LatencyConfig(adb={"benchmark_binary": str(binary)}))
    # The most, ten: median and quartiles of 1 to 10.
    assert source.costs([convolution(4)]) == [5.5]
    assert "5.5 ms are noisy" in caplog.text
    assert "interquartile range is 4.5 ms" in caplog.text


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, ("host", [], "", 1, "", None)),
        ({"latency_table": {"num_threads": 2}}, ("host", [], "", 2, "", None)),
        ({"multiply_adds": {}}, ("host", [], "", 1, "", None)),
        ({"predict": {"num_threads": 2}}, ("host", [], "", 2, "", None)),
        (
            {"host": {"num_threads": 2, "taskset": "3", "benchmark_binary": "b"}},
            ("host", [], "b", 2, "3", None),
        ),
        (
            {"adb": {"serial": ["x", "y"], "benchmark_binary": "b", "use_xnnpack": False}},
            ("adb", ["x", "y"], "b", 1, "", False),
        ),
    ],
)
def test_the_device_that_whole_networks_are_measured_on(config, expected):
    spec = latency.device_spec(search_pb2.LatencyConfig(**config))
    assert isinstance(spec, DeviceSpec)
    assert expected == (
        spec.kind,
        list(spec.serials),
        spec.binary,
        spec.options.num_threads,
        spec.options.taskset,
        spec.options.use_xnnpack,
    )


def test_units():
    assert latency.unit(search_pb2.LatencyConfig()) == "ms"
    assert latency.unit(search_pb2.LatencyConfig(host={})) == "ms"
    assert latency.unit(search_pb2.LatencyConfig(predict={})) == "ms"
    assert latency.unit(search_pb2.LatencyConfig(multiply_adds={})) == "G multiply-adds"


def test_measurements_that_are_not_of_the_tables_device(tmp_path):
    path = tmp_path / "table.textproto"
    config = search_pb2.LatencyConfig(latency_table={"path": str(path)})
    LatencyTable({"device": "host", "cpu": "Abacus"}, {"a": 3.0}).save(path)
    assert latency.measured_elsewhere(config) == ""
    phone = {"device": "adb", "manufacturer": "Acme", "model": "Phone 7"}
    LatencyTable(phone, {"a": 3.0}).save(path)
    assert latency.measured_elsewhere(config).startswith("Predicted for Acme Phone 7, measured on")
    assert latency.measured_elsewhere(search_pb2.LatencyConfig()) == ""

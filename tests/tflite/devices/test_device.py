"""mnasdet/tflite/device.py: all devices alike, and what is measured on a phone."""

import pytest

from mnasdet.errors import ConfigError, UserError
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.graph import Graph, Network
from mnasdet.networks.hyperparams import Kernel
from mnasdet.tflite.devices.benchmark_model import Options
from mnasdet.tflite.devices.device import DeviceSpec, parse
from mnasdet.tflite.devices.factory import opened
from mnasdet.tflite.devices.repeats import Repeats
from mnasdet.tflite.latency import table_measurement
from mnasdet.tflite.latency.latency_table import LatencyTable
from mnasdet.tflite.latency.layers import layers


def spec(kind, binary=""):
    options = Options(num_runs=20, warmup_runs=2)
    return DeviceSpec(kind, binary=str(binary), options=options, repeats=Repeats(2, 2))


def test_all_devices_tell_the_same(phone, stand_in, tiny_graph_path):
    results = []
    for one in (spec("host"), spec("host", stand_in), spec("adb", stand_in)):
        with opened(one) as device:
            results.append(device.benchmark(tiny_graph_path))
            (quick_ms,) = device.quick_ms([tiny_graph_path])
            told = device.provenance()
        assert 0 <= quick_ms < 100
        assert told.keys() <= results[-1]["provenance"].keys()
        assert results[-1]["iqr_ms"] >= 0
    for other in results[1:]:
        assert other.keys() == results[0].keys()
        assert other["provenance"].keys() == results[0]["provenance"].keys()
        before = other["provenance"]["before"]
        assert before.keys() == results[0]["provenance"]["before"].keys()


@pytest.fixture
def network():
    b = Builder()
    x = b.conv2d(b.input((32, 32, 8)), 64, 3, kernel=Kernel(), name="conv")
    return [b.max_pool(b.activation(x, "relu6", name="relu6"), 3, strides=2, name="pool")]


def test_table_of_a_phone(phone, stand_in, network, tmp_path):
    path, sheet = tmp_path / "phone.textproto", cost_sheet(network)
    with opened(spec("adb", stand_in)) as device:
        whole = Network({"graph": Graph({"pool": network[0]})})
        table_measurement.ensure(path, [sheet], device, [whole])
    loaded = LatencyTable.load(path)
    assert list(loaded.entries) == sorted(layer.key for layer in layers(sheet))
    conv_ms = loaded.entries["conv2d 32x32x8->64 k3 s1 relu6"]
    (network_ms,) = loaded.networks.values()
    assert 0 < conv_ms < 2 * network_ms
    assert {name: loaded.provenance[name] for name in ("device", "model", "soc", "governors")} == {
        "device": "adb", "model": "Phone 7", "soc": "AC7",
        "governors": ["performance", "schedutil"],
    }  # fmt: skip
    with (
        opened(spec("host")) as host,
        pytest.raises(ConfigError, match="measured with device 'adb', here it is 'host'; use a"),
    ):
        table_measurement.ensure(path, [sheet], host)


def test_many_graphs_are_one_session(phone, tiny_graph_path, tmp_path):
    """The shell starts the binary; nothing else happens between two graphs."""
    seen = tmp_path / "seen"
    binary = tmp_path / "binary"
    binary.write_text(f"#!/bin/sh\necho $PPID $* >>{seen}\nexit 3")
    graphs = [tmp_path / f"{number}.tflite" for number in range(30)]
    for graph in graphs:
        graph.write_bytes(tiny_graph_path.read_bytes())
    with (
        opened(spec("adb", binary)) as device,
        pytest.raises(UserError, match=r"binary on device .*: failed with status 3: no output"),
    ):
        device.quick_ms(graphs)
    starts = [line.split() for line in seen.read_text().splitlines()]
    assert len({parent for parent, *_ in starts}) == 1
    assert [flag for _, flag, *_ in starts] == [f"--graph={number}.tflite" for number in range(30)]
    assert {"--min_secs=0.1", "--warmup_min_secs=0.1"} <= set(starts[0])


def test_session_that_hangs_is_killed(phone, tiny_graph_path, tmp_path):
    started = tmp_path / "started"
    binary = tmp_path / "binary"
    binary.write_text(f"#!/bin/sh\necho $1 >>{started}\nexec sleep 60")
    hanging = DeviceSpec("adb", binary=str(binary), timeout_seconds=1)
    other = tmp_path / "other.tflite"
    other.write_bytes(tiny_graph_path.read_bytes())
    with opened(hanging) as device, pytest.raises(UserError, match="no end within 1 s"):
        device.quick_ms([tiny_graph_path, other])
    # The shell does not go on to the second one.
    assert started.read_text() == f"--graph={tiny_graph_path.name}\n"


@pytest.mark.parametrize("device", ["phone", "adb:", "host:1", ""])
def test_unknown_device(device):
    with pytest.raises(ConfigError, match=f"--device={device}: host, adb or adb:SERIAL is needed"):
        parse(device)


def test_names_of_devices():
    assert parse("host") == ("host", [])
    assert parse("adb") == ("adb", [])
    assert parse("adb:127.0.0.1:5555,b") == ("adb", ["127.0.0.1:5555", "b"])
    with pytest.raises(ConfigError, match="--device=adb: needs --benchmark_binary"):
        DeviceSpec("adb")

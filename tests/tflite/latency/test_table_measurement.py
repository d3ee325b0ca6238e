"""mnasdet/tflite/table_measurement.py: layers and whole networks on a device, in rounds."""

from collections import Counter

import pytest

from mnasdet.errors import ConfigError
from mnasdet.networks.builder import Builder, canonical_key
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.graph import Graph, Network
from mnasdet.networks.hyperparams import Kernel
from mnasdet.tflite.devices import host
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.devices.factory import opened
from mnasdet.tflite.latency import table_measurement
from mnasdet.tflite.latency.latency_table import LatencyTable
from mnasdet.tflite.latency.layers import layers
from mnasdet.tflite.latency.network_graph import NOTHING, layer_graph

NOTHING_MS = 0.25
# Turns that graphs whose figures agree are given: the four layers', then the network's.
EACH = [5, 5, 5, 5, 10]


@pytest.fixture
def outputs():
    b = Builder()
    x = b.input((16, 16, 8))
    for number, filters in enumerate((16, 24, 8)):
        x = b.conv2d(x, filters, 3, kernel=Kernel(), name=f"conv{number}")
    return [b.add(x, x, name="add")]


@pytest.fixture
def keys(outputs):
    """Returns the keys of the four layers, then that of the network."""
    return [layer.key for layer in layers(cost_sheet(outputs))] + [canonical_key(outputs)]


def single(outputs):
    return Network({"graph": Graph(dict(enumerate(outputs)))})


class Clock:
    """A device whose times are told beforehand, and which may be unplugged.

    Attributes:
      times_ms: of each measurement of a graph, by its content; the last one for all further ones.
      most: graphs it measures before it is interrupted.
    """

    def __init__(self, times_ms):
        self.times_ms, self.most, self.counts = times_ms, 1000, Counter()

    def provenance(self):
        return host.provenance(DeviceSpec())

    def quick_ms(self, graphs):
        return [self._one_ms(graph.read_bytes()) for graph in graphs]

    def _one_ms(self, graph):
        times_ms = self.times_ms[graph]
        if self.counts.total() == self.most:
            raise KeyboardInterrupt
        number = self.counts[graph]
        self.counts[graph] += 1
        return times_ms[min(number, len(times_ms) - 1)]


@pytest.fixture
def build(outputs, keys, tmp_path):
    """Builds the table, with the figures of each round by key; gives it and how often each graph
    was measured."""

    def run(times_ms, most=1000):
        sheet = cost_sheet(outputs)
        graphs = {layer.key: layer_graph(layer) for layer in layers(sheet)}
        graphs[keys[-1]] = table_measurement.network_graph(outputs)
        times = {graph: times_ms.get(key, [1.0]) for key, graph in graphs.items()}
        clock = Clock({**times, layer_graph(NOTHING): [NOTHING_MS]})
        clock.most = most
        try:
            path = tmp_path / "table.textproto"
            table_measurement.ensure(path, [sheet], clock, [single(outputs)])
        except KeyboardInterrupt:
            assert most < 1000
        table = LatencyTable.load(tmp_path / "table.textproto")
        return table, [clock.counts[graphs[key]] for key in keys]

    return run


def test_five_rounds_of_which_the_fastest_counts(build, keys):
    table, counts = build({keys[0]: [10.2, 10.4, 30.0, 10.1, 15.0], keys[-1]: [5.3, 5.0, 5.1, 9.2]})
    assert counts == EACH
    assert table.noisy == set()
    # A layer's entry leaves out the time that the runtime takes for nothing.
    assert table.entries == {keys[0]: 9.85} | dict.fromkeys(keys[1:-1], 0.75)
    assert table.networks == {keys[-1]: 5.0}


def test_disturbed_graphs_alone_are_measured_until_the_two_fastest_turns_agree(build, keys):
    table, counts = build(
        {
            keys[1]: [15.0, 13.0, 16.0, 18.0, 20.0, 10.0, 11.0, 10.3],
            keys[-1]: [5.0] + 10 * [6.0] + [5.2],
        }
    )
    assert counts == [5, 8, 5, 5, 12]
    assert table.noisy == set()
    assert table.entries[keys[1]] == 9.75
    assert table.networks[keys[-1]] == 5.0


def test_microseconds_agree_with_each_other(build, keys):
    table, counts = build({keys[0]: [NOTHING_MS + ms for ms in (0.011, 0.0125, 0.1)]})
    assert counts[0] == 5
    assert table.noisy == set()
    assert table.entries[keys[0]] == pytest.approx(0.011)


def test_what_is_faster_than_nothing_takes_nothing(build, keys):
    table, _ = build({keys[0]: [NOTHING_MS - 0.001]})
    assert table.entries[keys[0]] == 0


def test_turns_that_never_agree_are_noisy_and_go_on_another_time(build, keys):
    ever_faster = [40 * 0.9**number for number in range(20)]
    table, counts = build({keys[0]: ever_faster, keys[-1]: ever_faster})
    assert counts == [10, 5, 5, 5, 20]
    assert table.noisy == {keys[0], keys[-1]}
    layer_ms, network_ms = ever_faster[9] - NOTHING_MS, ever_faster[19]
    assert table.entries[keys[0]] == pytest.approx(layer_ms, abs=1e-6)
    assert table.networks[keys[-1]] == pytest.approx(network_ms, abs=1e-6)
    # Only uncertain entries are measured again; earlier measurements count.
    table, counts = build({keys[0]: [16.0], keys[-1]: [5.3]})
    assert counts == [5, 0, 0, 0, 10]
    assert table.noisy == set()
    assert table.entries[keys[0]] == pytest.approx(layer_ms, abs=1e-6)
    assert table.networks[keys[-1]] == 5.3


def test_interrupted_measurement_keeps_what_it_has(build, keys, monkeypatch):
    monkeypatch.setattr(table_measurement, "_BATCH", 1)
    # The first of these is what runs for nothing.
    table, counts = build({}, most=1 + 3)
    assert sum(counts) == 3
    known = table.entries.keys() | table.networks.keys()
    assert table.noisy == known == {key for key, count in zip(keys, counts, strict=True) if count}
    table, counts = build({})
    assert counts == EACH
    assert table.noisy == set()


def test_table_grows_by_what_it_lacks(build, keys, tmp_path):
    table, _ = build({})
    del table.entries[keys[2]]
    table.scale = 1.5
    table.save(tmp_path / "table.textproto")
    table, counts = build({keys[2]: [4.0]})
    assert counts == [0, 0, 5, 0, 0]
    assert table.entries[keys[2]] == 3.75
    assert table.scale == 1.5


def test_table_of_another_machine_is_left_alone(build, tmp_path):
    path = tmp_path / "table.textproto"
    LatencyTable(host.provenance(DeviceSpec()) | {"cpu": "Abacus"}, {"a": 1.0}).save(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="measured with cpu 'Abacus', here it is"):
        build({})
    assert path.read_bytes() == before


def test_larger_layer_takes_longer(tmp_path):
    b = Builder()
    x = b.input((64, 64, 64))
    sheets = [
        cost_sheet([b.conv2d(x, channels, 3, kernel=Kernel(), name=f"conv_{channels}")])
        for channels in (8, 128)
    ]
    with opened(DeviceSpec()) as device:
        table = table_measurement.ensure(tmp_path / "table.textproto", sheets, device)
    small, large = (table.latency_ms(sheet) for sheet in sheets)
    assert large > 2 * small > 0

"""mnasdet/tflite/layer_latency.py: single layers on a device."""

import numpy as np
import pytest

from mnasdet.errors import ConfigError
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.hyperparams import HE_NORMAL
from mnasdet.tflite import host, layer_latency
from mnasdet.tflite.device import DeviceSpec
from mnasdet.tflite.latency_table import LatencyTable
from mnasdet.tflite.layers import layers


@pytest.fixture
def network():
    b = Builder()
    x = b.input((16, 16, 8))
    for number, filters in enumerate((16, 24, 8)):
        x = b.conv2d(x, filters, 3, initializer=HE_NORMAL, name=f"conv{number}")
    return cost_sheet([b.add(x, x, name="add")])


class Counting:
    """This machine, which counts and may be unplugged."""

    def __init__(self, device, most=1000):
        self.device, self.count, self.most = device, 0, most

    def provenance(self):
        return self.device.provenance()

    def small_graphs_ms(self, graphs):
        self.count += len(graphs)
        if self.count > self.most:
            raise KeyboardInterrupt
        return self.device.small_graphs_ms(graphs)


@pytest.fixture
def device():
    with DeviceSpec().open() as opened:
        yield Counting(opened)


def test_table_grows_by_what_it_lacks(network, device, tmp_path):
    path = tmp_path / "table.textproto"
    table = layer_latency.ensure(path, [network], device)
    assert set(table.entries) == {layer.key for layer in layers(network)}
    assert all(0 <= ms < 1000 for ms in table.entries.values())
    assert table.latency_ms(network) > 0
    assert device.count == 4 + 1  # and the graph that does nothing
    assert LatencyTable.load(path).entries == pytest.approx(table.entries, abs=1e-6)

    # Complete: nothing is measured. One taken out: that one is.
    layer_latency.ensure(path, [network], device)
    assert device.count == 5
    kept = dict(table.entries)
    gone = layers(network)[0].key
    del table.entries[gone]
    table.scale = 1.5
    table.save(path)
    again = layer_latency.ensure(path, [network], device)
    assert device.count == 5 + 2
    assert {key: ms for key, ms in again.entries.items() if key != gone} == {
        key: ms for key, ms in kept.items() if key != gone
    }
    assert gone in again.entries
    assert again.scale == 1.5


def test_interrupted_measurement_keeps_what_it_has(network, device, tmp_path, monkeypatch):
    path = tmp_path / "table.textproto"
    monkeypatch.setattr(layer_latency, "_BATCH", 2)
    device.most = 3
    with pytest.raises(KeyboardInterrupt):
        layer_latency.ensure(path, [network], device)
    assert list(LatencyTable.load(path).entries) == sorted(
        layer.key for layer in layers(network)[:2]
    )


def test_table_of_another_machine_is_left_alone(network, device, tmp_path):
    path = tmp_path / "table.textproto"
    LatencyTable(host.provenance(DeviceSpec()) | {"cpu": "Abacus"}, {"a": 1.0}).save(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="measured with cpu 'Abacus', here it is"):
        layer_latency.ensure(path, [network], device)
    assert path.read_bytes() == before


def test_larger_layer_takes_longer(device):
    b = Builder()
    x = b.input((64, 64, 64))
    conv = {
        channels: layers(
            cost_sheet([b.conv2d(x, channels, 3, initializer=HE_NORMAL, name=f"conv_{channels}")])
        )[0]
        for channels in (8, 128)
    }
    measured = dict(layer_latency.measure(conv.values(), device))
    small, large = (measured[conv[channels].key] for channels in (8, 128))
    assert large > 2 * small > 0
    assert np.isfinite(large)

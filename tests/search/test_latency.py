"""Where the search's latencies come from."""

import pytest

from mnasdet.errors import UserError
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.hyperparams import HE_NORMAL
from mnasdet.protos import search_pb2
from mnasdet.search import latency
from mnasdet.tflite.latency_table import LatencyTable
from mnasdet.tflite.layers import layers


def sheet(channels):
    b = Builder()
    return cost_sheet(
        [b.conv2d(b.input((8, 8, 3)), channels, 3, initializer=HE_NORMAL, name="conv")]
    )


def test_multiply_adds_are_counted_in_billions():
    source = latency.from_config(search_pb2.LatencyConfig(multiply_adds={}))
    assert not source.has_to_measure([sheet(4)])
    assert source.latencies_ms([sheet(4), sheet(8)]) == pytest.approx(
        [8 * 8 * 27 * 4 / 1e9, 8 * 8 * 27 * 8 / 1e9]
    )


def test_a_given_table_is_never_added_to(tmp_path):
    (layer,) = layers(sheet(4))
    table = LatencyTable({"device": "phone"}, {layer.key: 3.0}, scale=2.0, constant_ms=0.5)
    table.save(tmp_path / "table.textproto")
    source = latency.from_config(
        search_pb2.LatencyConfig(latency_table={"path": str(tmp_path / "table.textproto")})
    )
    assert source.latencies_ms([sheet(4)]) == [6.5]
    assert not source.has_to_measure([sheet(8)])
    with pytest.raises(UserError, match="no latency for layer"):
        source.latencies_ms([sheet(8)])


def test_this_machines_table_measures_what_it_lacks_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MNASDET_CACHE_DIR", str(tmp_path))
    source = latency.from_config(search_pb2.LatencyConfig())
    assert source.has_to_measure([sheet(4)])
    (measured,) = source.latencies_ms([sheet(4)])
    assert not source.has_to_measure([sheet(4)])
    assert source.has_to_measure([sheet(4), sheet(8)])
    # Another search finds it measured.
    another = latency.from_config(search_pb2.LatencyConfig())
    assert not another.has_to_measure([sheet(4)])
    assert another.latencies_ms([sheet(4)]) == [measured]

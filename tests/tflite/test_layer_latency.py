"""mnasdet/tflite/layer_latency.py: single layers on this machine."""

import numpy as np
import pytest

from mnasdet.errors import ConfigError
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.hyperparams import HE_NORMAL
from mnasdet.tflite import layer_latency
from mnasdet.tflite.benchmark import provenance
from mnasdet.tflite.interpreter import load
from mnasdet.tflite.latency_table import LatencyTable, layers


@pytest.fixture
def every_op():
    """A network of every op of the Builder."""
    b = Builder()
    x = b.input((16, 16, 8))
    x = b.conv2d(x, 16, 3, strides=2, initializer=HE_NORMAL, name="conv")
    x = b.activation(b.batch_norm(x, momentum=0.9, epsilon=0.1, name="bn"), "relu6", name="relu6")
    x = b.depthwise_conv2d(x, 5, initializer=HE_NORMAL, name="depthwise")
    x = b.activation(b.add(x, x, name="add"), "relu", name="relu")
    x = b.batch_norm(x, momentum=0.9, epsilon=0.1, name="alone")
    gate = b.activation(b.global_max_pool(x, name="global"), "sigmoid", name="sigmoid")
    x = b.multiply(x, gate, name="multiply")
    y = b.upsample(b.max_pool(x, 3, strides=2, name="pool"), (8, 8), name="upsample")
    flat = [b.reshape(z, (64, 16), name=name) for name, z in (("x", x), ("y", y))]
    return cost_sheet([b.concat(flat, name="concat")])


def test_graph_of_a_layer_is_that_layer(every_op):
    for layer in layers(every_op):
        interpreter = load(layer_latency.graph(layer), 1, layer.key)
        shapes = {tuple(d["shape"][1:]) for d in interpreter.get_input_details()}
        assert shapes == {x.shape for x in layer.node.inputs}
        (output,) = interpreter.get_output_details()
        assert tuple(output["shape"][1:]) == layer.node.shape
        operations = [op["op_name"] for op in interpreter._get_ops_details()]
        operations = [name for name in operations if name != "DELEGATE"]
        # A batch normalisation of its own is a product and a sum.
        assert len(operations) == (2 if layer.node.op == "batch_norm" else 1), operations


def test_table_grows_by_what_it_lacks(every_op, tmp_path, monkeypatch):
    path = tmp_path / "table.textproto"
    table = layer_latency.ensure(path, [every_op])
    assert set(table.entries) == {layer.key for layer in layers(every_op)}
    assert all(0 <= ms < 1000 for ms in table.entries.values())
    assert table.latency_ms(every_op) > 0
    assert LatencyTable.load(path).entries == pytest.approx(table.entries, abs=1e-6)

    # Complete: nothing is measured. One taken out: that one is.
    measured = []

    def record(layers, num_threads):
        for layer in layers:
            measured.append(layer.key)
            yield layer.key, 0.5

    monkeypatch.setattr(layer_latency, "measure", record)
    layer_latency.ensure(path, [every_op])
    assert measured == []
    gone = layers(every_op)[0].key
    del table.entries[gone]
    table.scale = 1.5
    table.save(path)
    again = layer_latency.ensure(path, [every_op])
    assert measured == [gone]
    assert again.entries[gone] == 0.5
    assert again.scale == 1.5


def test_interrupted_measurement_keeps_what_it_has(every_op, tmp_path, monkeypatch):
    path = tmp_path / "table.textproto"

    def stop_at_third(layers, num_threads):
        for layer in list(layers)[:2]:
            yield layer.key, 1.0
        raise KeyboardInterrupt

    monkeypatch.setattr(layer_latency, "measure", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        layer_latency.ensure(path, [every_op])
    assert list(LatencyTable.load(path).entries.values()) == [1.0, 1.0]


def test_table_of_another_machine_is_left_alone(every_op, tmp_path):
    path = tmp_path / "table.textproto"
    LatencyTable(provenance(1) | {"cpu": "Abacus"}, {"a": 1.0}).save(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="measured with cpu 'Abacus', here it is"):
        layer_latency.ensure(path, [every_op])
    assert path.read_bytes() == before


def test_larger_layer_takes_longer():
    b = Builder()
    x = b.input((64, 64, 64))
    conv = {
        channels: layers(
            cost_sheet([b.conv2d(x, channels, 3, initializer=HE_NORMAL, name=f"conv_{channels}")])
        )[0]
        for channels in (8, 128)
    }
    measured = dict(layer_latency.measure(conv.values()))
    small, large = (measured[conv[channels].key] for channels in (8, 128))
    assert large > 2 * small > 0
    assert np.isfinite(large)


def test_scale_is_set_in_the_file(tmp_path):
    path = tmp_path / "table.textproto"
    LatencyTable(provenance(1), {"a": 2.0}).save(path)
    layer_latency.set_scale(path, 1.25, 0.5)
    loaded = LatencyTable.load(path)
    assert (loaded.scale, loaded.constant_ms, loaded.entries) == (1.25, 0.5, {"a": 2.0})

"""mnasdet/tflite/latency_table.py: layers, their keys, and sums of them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mnasdet import config
from mnasdet.errors import ConfigError, UserError
from mnasdet.models import network_of
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.graph import Graph, Network
from mnasdet.networks.hyperparams import Kernel
from mnasdet.protos.search_pb2 import SearchSpaceConfig
from mnasdet.search_spaces import factory
from mnasdet.tflite.devices import host
from mnasdet.tflite.devices.benchmark_model import Options
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.latency.latency_table import LatencyTable, default_path, missing
from mnasdet.tflite.latency.layers import layers
from mnasdet.tflite.latency.network_latency import Measured, network_latency


def provenance(num_threads):
    return host.provenance(DeviceSpec(options=Options(num_threads=num_threads)))


def keys(*outputs):
    return [layer.key for layer in layers(cost_sheet(outputs))]


@pytest.fixture
def b():
    return Builder()


@pytest.fixture
def image(b):
    return b.input((8, 6, 3))


def conv(b, x, name, filters=4):
    return b.conv2d(x, filters, 3, strides=2, kernel=Kernel(), name=name)


def batch_norm(b, x, name):
    return b.batch_norm(x, momentum=0.9, epsilon=0.1, name=name)


def test_batch_norm_and_relu6_run_within_the_convolution(b, image):
    x = b.activation(batch_norm(b, conv(b, image, "a"), "b"), "relu6", name="c")
    assert keys(x) == ["conv2d 8x6x3->4 k3 s2 relu6"]


def test_separable_convolution_is_two_layers(b, image):
    x = b.depthwise_conv2d(image, 5, kernel=Kernel(), name="a")
    x = batch_norm(b, b.conv2d(x, 7, 1, kernel=Kernel(), name="b"), "c")
    assert keys(x) == ["depthwise_conv2d 8x6x3 k5 s1", "conv2d 8x6x3->7 k1 s1"]


def test_relu6_runs_within_an_addition_and_sigmoid_in_nothing(b, image):
    x = b.activation(b.add(image, image, name="a"), "relu6", name="b")
    gate = b.activation(b.global_max_pool(x, name="c"), "sigmoid", name="d")
    assert keys(b.multiply(x, gate, name="e")) == [
        "add 8x6x3 8x6x3 relu6",
        "global_max_pool 8x6x3",
        "sigmoid 1x1x3",
        "multiply 8x6x3 1x1x3",
    ]


def test_nothing_is_fused_into_what_others_read(b, image):
    x = conv(b, image, "a")
    y = b.activation(x, "relu6", name="b")
    assert keys(b.add(x, y, name="c")) == [
        "conv2d 8x6x3->4 k3 s2",
        "relu6 4x3x4",
        "add 4x3x4 4x3x4",
    ]


def test_what_only_training_knows_is_no_layer(b, image):
    x = b.drop_block(batch_norm(b, conv(b, image, "a"), "b"), 0.9, 3, name="c")
    x = b.dropout(b.activation(x, "relu", name="d"), 0.5, name="e")
    assert keys(b.add(x, x, name="f")) == ["conv2d 8x6x3->4 k3 s2 relu", "add 4x3x4 4x3x4"]


def test_nothing_is_fused_into_an_output(b, image):
    x = b.add(image, image, name="a")
    assert keys(x, b.activation(x, "relu", name="b")) == ["add 8x6x3 8x6x3", "relu 8x6x3"]


def test_groups_kernels_that_are_no_square_and_axes(b, image):
    x = b.conv2d(image, 6, (1, 7), groups=3, kernel=Kernel(), name="a")
    y = b.conv2d(image, 6, (3, 3), kernel=Kernel(), name="b")
    z = b.avg_pool(b.concat([x, y], axis=-1, name="c"), 3, strides=1, name="d")
    assert keys(b.global_avg_pool(z, name="e")) == [
        "conv2d 8x6x3->6 k1x7 s1 g3",
        "conv2d 8x6x3->6 k3 s1",
        "concat 8x6x6 8x6x6 axis2",
        "avg_pool 8x6x12 k3 s1",
        "global_avg_pool 8x6x12",
    ]


def test_shapes_that_the_output_alone_tells(b, image):
    x = b.upsample(b.max_pool(image, 3, strides=2, name="a"), (8, 6), name="b")
    x = b.reshape(x, (48, 3), name="c")
    assert keys(b.concat([x, x], name="d")) == [
        "max_pool 8x6x3 k3 s2",
        "upsample 4x3x3->8x6x3",
        "reshape 8x6x3->48x3",
        "concat 48x3 48x3",
    ]


@pytest.fixture
def sheet(b, image):
    x = conv(b, image, "a")
    return cost_sheet([b.add(conv(b, image, "b"), x, name="c")])


def test_latency_is_scaled_sum_and_constant(sheet):
    table = LatencyTable({}, {"conv2d 8x6x3->4 k3 s2": 2.0, "add 4x3x4 4x3x4": 0.5}, 1.5, 0.25)
    assert table.latency_ms(sheet) == pytest.approx(1.5 * (2.0 + 2.0 + 0.5) + 0.25)
    assert table.missing(sheet) == []


def test_latency_adds_over_graphs_as_often_as_they_run(b, image):
    head = Builder()
    pool = head.global_avg_pool(head.input((4, 3, 4)), name="pool")
    network = Network(
        {"features": Graph({"x": conv(b, image, "a")}), "head": Graph({"x": pool}, times=50)}
    )
    entries = {"conv2d 8x6x3->4 k3 s2": 2.0, "global_avg_pool 4x3x4": 0.5}
    table = LatencyTable({}, entries, 1.5, 0.25, ms_per_megabyte=10.0, small_scale=0.5)
    # Both layers are small; of the constant every run of a graph has its own.
    # Kernel, input and output of the convolution; input and output of the pool.
    megabytes = (108 + 144 + 48) * 4e-6, 50 * (48 + 4) * 4e-6
    expected = (1.5 + 0.5) * (2.0 + 50 * 0.5) + 10.0 * sum(megabytes) + 51 * 0.25
    sheet = cost_sheet(network)
    assert table.latency_ms(sheet) == pytest.approx(expected)
    by_layer = [ms for _, ms in table.layer_latencies_ms(sheet)]
    assert by_layer == pytest.approx([4.0 + 10 * megabytes[0], 50.0 + 10 * megabytes[1]])
    first, second = network
    table.networks = {first.key(): 3.0, second.key(): 0.75}
    assert table.measured_ms(network) == 3.0 + 50 * 0.75


class EveryMillisecond:
    """A device on which the graphs take 1, 2, 3 ... ms."""

    def __init__(self):
        self.sizes = []

    def benchmark(self, path):
        self.sizes.append(path.stat().st_size)
        number = len(self.sizes)
        return {"median_ms": float(number), "iqr_ms": 0.125 * number, "noisy": number == 2}


def test_whole_networks_are_measured_graph_by_graph(b, image):
    head = Builder()
    pool = head.global_avg_pool(head.input((4, 3, 4)), name="pool")
    network = Network(
        {"features": Graph({"x": conv(b, image, "a")}), "head": Graph({"x": pool}, times=50)}
    )
    device = EveryMillisecond()
    assert network_latency(network, device) == Measured(1.0 + 50 * 2.0, 0.125 + 50 * 0.25, True)
    assert len(device.sizes) == 2


def test_small_layers_have_a_scale_of_their_own_besides(b):
    # The float32 input has 995 328 bytes. Its mean adds 12; the pool's output passes 1 MB.
    x = b.input((288, 288, 3))
    sheet = cost_sheet([b.global_avg_pool(x, name="a"), b.max_pool(x, 3, strides=2, name="b")])
    entries = {"global_avg_pool 288x288x3": 2.0, "max_pool 288x288x3 k3 s2": 3.0}
    table = LatencyTable({}, entries, 1.5, 0.25, small_scale=0.5)
    assert table.latency_ms(sheet) == pytest.approx((1.5 + 0.5) * 2.0 + 1.5 * 3.0 + 0.25)
    assert [ms for _, ms in table.layer_latencies_ms(sheet)] == [4.0, 4.5]


def test_missing_layer_is_an_error_that_says_how_to_add_it(sheet):
    table = LatencyTable({}, {}, path="phone.textproto")
    assert list(missing(None, [sheet])) == ["conv2d 8x6x3->4 k3 s2", "add 4x3x4 4x3x4"]
    with pytest.raises(
        UserError,
        match=r"^phone\.textproto: no latency for layer 'conv2d 8x6x3->4 k3 s2' and 1 more; add it "
        r"with build_latency_table --output=phone\.textproto$",
    ):
        table.latency_ms(sheet)


def test_saved_table_comes_back(tmp_path):
    path = tmp_path / "folder" / "table.textproto"
    table = LatencyTable(provenance(2), {"b": 0.125, "a": 3.0}, 1.25, -0.5, 0.5, 0.75)
    table.networks["k"] = 12.5
    table.noisy = {"k", "b"}
    table.save(path)
    loaded = LatencyTable.load(path)
    assert (loaded.entries, loaded.scale, loaded.constant_ms) == (
        {"a": 3.0, "b": 0.125},
        1.25,
        -0.5,
    )
    assert (loaded.ms_per_megabyte, loaded.small_scale) == (0.5, 0.75)
    assert loaded.provenance["num_threads"] == 2
    assert [p.name for p in path.parent.iterdir()] == ["table.textproto"]
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    assert loaded.networks == {"k": 12.5}
    assert loaded.noisy == {"k", "b"}
    loaded.check_device(provenance(2))
    with pytest.raises(ConfigError, match="measured with num_threads 2, here it is 1; use a file"):
        loaded.check_device(provenance(1))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "adb"),
        ("model", "Phone 7"),
        ("cpu", "Abacus"),
        ("soc", "AC7"),
        ("governors", ["performance"]),
        ("runtime", "benchmark_model 1234"),
        ("binary_sha256", "1234"),
        ("delegate_options", "--use_gpu=true"),
        ("num_threads", 3),
        ("taskset", "f0"),
    ],
)
def test_devices_are_not_mixed(tmp_path, field, value):
    here = provenance(1) | {"governors": ["schedutil"]}
    LatencyTable(here | {field: value}, {"a": 3.0}).save(tmp_path / "table.textproto")
    table = LatencyTable.load(tmp_path / "table.textproto")
    with pytest.raises(ConfigError, match=f"measured with {field} .*; use a file of its own"):
        table.check_device(here)


def test_a_table_from_before_more_was_recorded_is_extended(tmp_path):
    here = provenance(1) | {"governors": ["schedutil"]}
    early = {key: here[key] for key in ("device", "cpu", "runtime", "num_threads", "date")}
    LatencyTable(early, {"a": 3.0}).save(tmp_path / "table.textproto")
    LatencyTable.load(tmp_path / "table.textproto").check_device(here)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("scale: 1", "the table has no entries"),
        (
            'entry { layer: "a" latency_ms: 1 } entry { layer: "a" latency_ms: 2 }',
            "several entries",
        ),
        ('entry { layer: "a" latency_ms: -1 }', "latency_ms of layer 'a' is -1.0; use 0 or more"),
        ('entry { layer: "a" latency_ms: nan }', "latency_ms of layer 'a' is nan"),
        ('entry { layer: "a" }', "latency_ms of layer 'a' is missing"),
        (
            'entry { layer: "a" latency_ms: 1 } network { key: "b" }',
            "latency_ms of network 'b' is missing; use more than 0",
        ),
        (
            'entry { layer: "a" latency_ms: 1 } network { key: "b" latency_ms: 0 }',
            "latency_ms of network 'b' is 0.0; use more than 0",
        ),
        ('entry { layer: "a" latency_ms: 1 } scale: 0', "scale is 0"),
        ('entry { layer: "a" latency_ms: 1 } ms_per_megabyte: nan', "ms_per_megabyte is nan"),
        ('entry { layers: "a" }', 'no field "layers"'),
    ],
)
def test_bad_tables(tmp_path, text, message):
    path = tmp_path / "table.textproto"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        LatencyTable.load(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_devices_own_table_is_in_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("MNASDET_CACHE_DIR", str(tmp_path))
    one, two = default_path(provenance(1)), default_path(provenance(2))
    assert one.parent == two.parent == tmp_path / "latency"
    assert one.name.replace("-1-threads", "-2-threads") == two.name
    phone = dict.fromkeys(provenance(1)) | {
        "device": "adb", "manufacturer": "Acme", "model": "Phone 7", "soc": "AC7",
        "runtime": "benchmark_model 1234", "num_threads": 1, "taskset": "f0",
        "delegate_options": "--use_xnnpack=false",
    }  # fmt: skip
    assert default_path(phone).name == (
        "adb-Acme-Phone-7-AC7-benchmark-model-1234-1-threads-cores-f0-use-xnnpack-false.textproto"
    )


def test_what_the_layers_add(sheet):
    table = LatencyTable({}, {"conv2d 8x6x3->4 k3 s2": 2.0, "add 4x3x4 4x3x4": 0.5}, 1.5, 0.25)
    added = [(layer.node.name, ms) for layer, ms in table.layer_latencies_ms(sheet)]
    assert added == [("b", 3.0), ("a", 3.0), ("c", 0.75)]
    assert sum(ms for _, ms in added) + 0.25 == table.latency_ms(sheet)


def test_reading_a_table_loads_no_tensorflow():
    code = "import sys, mnasdet.tflite.latency.latency_table; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


SHIPPED = sorted((Path(__file__).parents[3] / "tflite/latency_tables").glob("*.textproto"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_table_has_all_layers_of_its_space(path):
    table = LatencyTable.load(path)
    assert {"device", "cpu", "runtime", "num_threads", "date", "config_sha256"} <= set(
        table.provenance
    )
    assert len(table.noisy) < 0.02 * len(table.entries)
    base = config.load_architecture("mobilenet_v2_mnasfpn")
    space = factory.from_config(SearchSpaceConfig(mnasfpn={}), base)
    rng = np.random.default_rng(7)
    architectures = [base, *(space.decode(space.sample(rng)) for _ in range(20))]
    slowest_ms = max(table.networks.values())
    for architecture in architectures:
        sheet = cost_sheet(network_of(architecture, (320, 320), 90).outputs)
        assert 10 < table.latency_ms(sheet) < 1.5 * slowest_ms

"""mnasdet/tflite/latency_table.py: layers, their keys, and sums of them."""

import subprocess
import sys

import pytest

from mnasdet.errors import ConfigError, UserError
from mnasdet.networks.builder import Builder
from mnasdet.networks.cost import cost_sheet
from mnasdet.networks.hyperparams import HE_NORMAL
from mnasdet.tflite.benchmark import provenance
from mnasdet.tflite.latency_table import LatencyTable, host_table_path, layers, missing


def keys(*outputs):
    return [layer.key for layer in layers(cost_sheet(outputs))]


@pytest.fixture
def b():
    return Builder()


@pytest.fixture
def image(b):
    return b.input((8, 6, 3))


def conv(b, x, name, filters=4):
    return b.conv2d(x, filters, 3, strides=2, initializer=HE_NORMAL, name=name)


def batch_norm(b, x, name):
    return b.batch_norm(x, momentum=0.9, epsilon=0.1, name=name)


def test_batch_norm_and_relu6_run_within_the_convolution(b, image):
    x = b.activation(batch_norm(b, conv(b, image, "a"), "b"), "relu6", name="c")
    assert keys(x) == ["conv2d 8x6x3->4 k3 s2 relu6"]


def test_separable_convolution_is_two_layers(b, image):
    x = b.depthwise_conv2d(image, 5, initializer=HE_NORMAL, name="a")
    x = batch_norm(b, b.conv2d(x, 7, 1, initializer=HE_NORMAL, name="b"), "c")
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


def test_missing_layer_is_an_error_that_says_how_to_add_it(sheet):
    table = LatencyTable({}, {}, path="phone.textproto")
    assert list(missing(None, [sheet])) == ["conv2d 8x6x3->4 k3 s2", "add 4x3x4 4x3x4"]
    with pytest.raises(
        UserError,
        match=r"^phone\.textproto: no latency for layer 'conv2d 8x6x3->4 k3 s2' and 1 more; add it "
        r"with scripts/build_latency_table\.py --output=phone\.textproto$",
    ):
        table.latency_ms(sheet)


def test_saved_table_comes_back(tmp_path):
    path = tmp_path / "folder" / "table.textproto"
    table = LatencyTable(provenance(2), {"b": 0.125, "a": 3.0}, 1.25, -0.5)
    table.save(path)
    loaded = LatencyTable.load(path)
    assert (loaded.entries, loaded.scale, loaded.constant_ms) == (
        {"a": 3.0, "b": 0.125},
        1.25,
        -0.5,
    )
    assert loaded.provenance["num_threads"] == 2
    assert [p.name for p in path.parent.iterdir()] == ["table.textproto"]
    assert path.read_text().index('"a"') < path.read_text().index('"b"')
    loaded.check_device(2)
    with pytest.raises(ConfigError, match="measured with num_threads 2, here it is 1; use a file"):
        loaded.check_device(1)


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
        ('entry { layer: "a" latency_ms: 1 } scale: 0', "scale is 0"),
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


def test_host_table_is_in_the_cache_folder_by_threads(monkeypatch, tmp_path):
    monkeypatch.setenv("MNASDET_CACHE_DIR", str(tmp_path))
    one, two = host_table_path(1), host_table_path(2)
    assert one.parent == two.parent == tmp_path / "latency"
    assert one.name.replace("-1-threads", "-2-threads") == two.name
    assert one != two


def test_reading_a_table_loads_no_tensorflow():
    code = "import sys, mnasdet.tflite.latency_table; print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

"""scripts/analyze.py as a command."""

import functools
import json
import re

import pytest
from plotly.offline import get_plotlyjs

from mnasdet import config
from mnasdet.models import network_of
from mnasdet.networks.cost import cost_sheet
from mnasdet.tflite.latency.latency_table import LatencyTable
from mnasdet.tflite.latency.layers import layers
from tests.integration.commands import ROOT, run

MNASFPN = "--architecture=mobilenet_v2_mnasfpn"

analyze = functools.partial(run, "analyze")


# MnasFPN, tables 1 and 3: 2.50 M and 0.92 B; 0.04 B more without size-dependent ordering and with
# a fifth repeat.
@pytest.mark.parametrize(
    ("arguments", "params", "multiply_adds"),
    [
        ([MNASFPN], 2503047, 918578800),
        ([MNASFPN, "--size_dependent_ordering=false"], 2503047, 962354800),
        ([MNASFPN, "--repeats=5"], 2624551, 964424400),
        (
            ["--pipeline_config_path=configs/mnasfpn_mobilenet_v2_320x320_coco.config"],
            2503047,
            918578800,
        ),
    ],
)
def test_published_figures(arguments, params, multiply_adds):
    done = analyze(*arguments, "--format=json")
    costs = json.loads(done.stdout)
    assert (costs["params"], costs["multiply_adds"]) == (params, multiply_adds)
    assert costs["image_size"] == [320, 320]
    assert costs["num_classes"] == 90
    for cost in ("params", "trainable_params", "multiply_adds", "memory_bytes", "operations"):
        assert sum(part[cost] for part in costs["parts"].values()) == costs[cost]


def test_width_and_size():
    done = analyze(MNASFPN, "--depth_multiplier=0.7", "--format=json")
    # Table 1 has 1.29 M.
    assert json.loads(done.stdout)["params"] == pytest.approx(1.29e6, rel=0.005)
    done = analyze(MNASFPN, "--num_classes=80", "--format=json")
    # A class is 9 kernels of 64 weights and a bias, one an anchor.
    assert json.loads(done.stdout)["params"] == 2503047 - 10 * 9 * 65
    done = analyze(MNASFPN, "--image_size=640", "--format=json")
    assert json.loads(done.stdout)["multiply_adds"] == 4 * 918578800


# Trainable weights and multiply-adds of the papers' tables: NAS-FPN counts two operations a
# multiply-add.
@pytest.mark.parametrize(
    ("name", "trainable_params", "multiply_adds"),
    [
        ("mobilenet_v2_fpnlite_64", 2.02e6, 1.51e9 / 2),
        ("resnet50_fpn_256", 34.0e6, 193.6e9 / 2),
        ("resnet50_nas_fpn_7_256", 60.3e6, 281.3e9 / 2),
        ("mobilenet_v3_large_halved_ssdlite", 3.22e6, 0.51e9),
        ("mnasnet_a1", 3.9e6, 312e6),
    ],
)
def test_published_figures_of_others(name, trainable_params, multiply_adds):
    costs = json.loads(analyze(f"--architecture={name}", "--format=json").stdout)
    assert costs["trainable_params"] == pytest.approx(trainable_params, rel=0.01)
    assert costs["multiply_adds"] == pytest.approx(multiply_adds, rel=0.01)
    assert costs["num_classes"] == (1000 if name == "mnasnet_a1" else 90)


def test_an_architecture_string():
    """The published structure once more, given as its string."""
    published = json.loads(analyze(MNASFPN, "--format=json").stdout)
    again = analyze(f"--architecture={published['structure']}", "--format=json")
    assert json.loads(again.stdout) == {**published, "architecture": "unnamed"}


def test_a_two_stage_detector_at_a_rectangle_and_some_proposals():
    """Hit-Detector, table 1: 41.76 M weights with COCO's 80 classes, 14.3 M of them the head's,
    which has as many multiply-adds for every region."""
    faster_rcnn = "--architecture=faster_rcnn_resnet50_fpn"
    costs = json.loads(analyze(faster_rcnn, "--format=json").stdout)
    assert (costs["image_size"], costs["num_classes"]) == ([800, 1200], 80)
    assert costs["num_proposals"] == 1000
    assert costs["trainable_params"] == pytest.approx(41.76e6, rel=3e-4)
    weights = {part: cost["trainable_params"] / 1e6 for part, cost in costs["parts"].items()}
    assert weights == {
        "backbone": pytest.approx(23.5, abs=0.05),
        "feature_pyramid": pytest.approx(3.3, abs=0.05),
        "region_proposal": pytest.approx(0.594, abs=0.0005),
        "region_head": pytest.approx(14.3, abs=0.05),
    }
    head = costs["parts"]["region_head"]["multiply_adds"]
    text = analyze(faster_rcnn, "--num_proposals=10", "--image_size=800,1344").stdout
    lines = text.splitlines()
    assert lines[0] == "faster_rcnn_resnet50_fpn at 800x1344, 80 classes, 10 proposals"
    assert lines[5].split()[:1] == ["region_head"]
    assert lines[5].split()[3] == f"{head // 100:,}"


def test_text_names_the_parts():
    lines = analyze(MNASFPN).stdout.splitlines()
    assert lines[0] == "mobilenet_v2_mnasfpn at 320x320, 90 classes"
    assert [line.split()[0] for line in lines[2:]] == [
        "backbone",
        "feature_pyramid",
        "box_predictor",
        "total",
    ]
    assert lines[-1].split()[1:4] == ["2,503,047", "2,455,655", "918,578,800"]


def test_list_has_every_architecture():
    names = sorted(path.stem for path in (ROOT / "configs" / "architectures").glob("*.textproto"))
    rows = json.loads(analyze("--list", "--format=json").stdout)["architectures"]
    assert [row["architecture"] for row in rows] == names
    published = next(row for row in rows if row["architecture"] == "mobilenet_v2_mnasfpn")
    assert published == {
        "architecture": "mobilenet_v2_mnasfpn",
        "image_size": [320, 320],
        "trainable_params": 2455655,
        "params": 2503047,
        "multiply_adds": 918578800,
        "source": "MnasFPN, table 1 and figure 2",
    }
    line = analyze("--list").stdout.splitlines()[1 + names.index("mobilenet_v2_mnasfpn")]
    assert line.split() == [
        "mobilenet_v2_mnasfpn",
        "320x320",
        "2,455,655",
        "2,503,047",
        "918,578,800",
        *["MnasFPN,", "table", "1", "and", "figure", "2"],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --architecture, --pipeline_config_path, --op_profile or --list"),
        (["--architecture=mnasfpn"], 'no architecture "mnasfpn"; one of '),
        ([MNASFPN, "--image_size=32"], "image size 32x32: at least 64 is needed"),
        ([MNASFPN, "--num_proposals=10"], "--num_proposals: the architecture has no second stage"),
        ([MNASFPN, "--image_size=1,2,3"], "--image_size=1,2,3: a side such as 320, or 256x448"),
        ([MNASFPN, "--depth_multiplier=0"], "--depth_multiplier is 0; more than 0"),
        (["--architecture=resnet50_fpn_256", "--repeats=2"], "--repeats: fpn has none"),
        (
            ["--architecture=mnasnet_a1", "--size_dependent_ordering"],
            "--size_dependent_ordering: a classifier has none",
        ),
        (["--architecture=mnasnet_a1", "--image_size=31"], "image size 31x31: at least 32 is"),
        (
            ["--architecture=resnet_18/fpn_c64/retinanet_d64_n2"],
            "the architecture names no image size; set --image_size",
        ),
        (
            ["--architecture=resnet_18/fpn_c64_d2"],
            'architecture string, character 19: "d2": the options here are cNUMBER, ',
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line(arguments, message):
    done = analyze(*arguments, status=1)
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def hovers(page):
    """The names of the layers in a plot."""
    figures = re.findall(r'<script type="application/json">(.*?)</script>', page)
    return {name for name, _ in json.loads(figures[0])["data"][0]["customdata"]}


def test_latency_by_part_and_layer(tmp_path):
    """A table in which a layer takes as many milliseconds as its key has letters."""
    size = ["--architecture=mobilenet_v3_small_halved_ssdlite", "--image_size=320"]
    network = network_of(
        config.load_architecture(size[0].partition("=")[2]), (320, 320), 90
    ).outputs
    found = layers(cost_sheet(network))
    entries = {layer.key: float(len(layer.key)) for layer in found}
    path, plot = tmp_path / "table.textproto", tmp_path / "plot.html"
    LatencyTable({"device": "host"}, entries, scale=2.0, constant_ms=1.5).save(path)
    done = analyze(*size, f"--latency_table={path}", f"--plot={plot}", "--format=json")
    latency = json.loads(done.stdout)["latency"]
    total = 2 * sum(len(layer.key) for layer in found) + 1.5
    assert latency["latency_ms"] == total
    assert sum(latency["parts"].values()) + latency["constant_ms"] == pytest.approx(total)
    assert set(latency["parts"]) == {"backbone", "feature_pyramid", "box_predictor"}
    predictor = [len(x.key) for x in found if x.node.name.startswith("box_predictor/")]
    assert latency["parts"]["box_predictor"] == 2 * sum(predictor)
    slowest = latency["slowest_layers"]
    assert len(slowest) == 10
    assert slowest[0]["latency_ms"] == 2 * max(entries.values()) == 2 * len(slowest[0]["layer"])
    # One page, which the browser lets load nothing, with every layer in it.
    page = plot.read_text()
    assert "default-src 'none'" in page
    assert get_plotlyjs() in page
    assert {layer.node.name for layer in found} <= hovers(page)

    text = analyze(*size, f"--latency_table={path}", "--num_slowest=3").stdout
    assert f"{total:.4f}      100.0%" in text
    assert len(re.findall(r"^ +[0-9.]+ ms ", text, re.MULTILINE)) == 3
    del entries[found[5].key]
    LatencyTable({"device": "host"}, entries).save(path)
    done = analyze(*size, f"--latency_table={path}", status=1)
    assert f"no latency for layer '{found[5].key}'; add it with build_latency_table" in done.stderr


def test_latency_by_the_operators_of_a_profile(tmp_path):
    path, plot = tmp_path / "benchmark.json", tmp_path / "plot.html"

    def row(type_, name, mean_ms, within_delegate=False):
        return {
            "type": type_, "name": name, "mean_ms": mean_ms, "within_delegate": within_delegate
        }  # fmt: skip

    operators = [
        row("CONV_2D", "[detector/backbone/layer_1/relu6/Relu6;detector/backbone/bn]:0", 2.0),
        row("ADD", "[detector/feature_pyramid/cell_0/add/add]:1", 1.0),
        row("CONV_2D", "[detector/backbone/layer_2/conv/Conv2D]:2", 0.5),
        row("CONCATENATION", "[PartitionedCall:0]:3", 0.25),
    ]
    in_delegate = [
        row("TfLiteXNNPackDelegate", "[PartitionedCall:0]:4", 3.0),
        row("Convolution (NHWC, F32) GEMM", "Convolution (NHWC, F32) GEMM:0", 2.9, True),
    ]
    benchmark = {"mean_ms": 7.0, "provenance": {"graph": "detect.tflite"}}
    path.write_text(json.dumps(benchmark | {"operators": operators + in_delegate}))
    done = analyze(f"--op_profile={path}", f"--plot={plot}", "--format=json")
    latency = json.loads(done.stdout)["latency"]
    assert latency["parts"] == {
        "backbone": 2.5, "feature_pyramid": 1.0, "other": 0.25, "delegate": 2.9
    }  # fmt: skip
    assert latency["constant_ms"] == pytest.approx(7.0 - 6.65)
    assert [layer["name"] for layer in latency["slowest_layers"]][1:3] == [
        "backbone/layer_1/relu6/Relu6", "feature_pyramid/cell_0/add/add"
    ]  # fmt: skip
    assert "backbone/layer_2/conv/Conv2D" in hovers(plot.read_text())
    text = analyze(f"--op_profile={path}").stdout
    assert re.search(r"^latency by operators +ms +share$", text, re.MULTILINE)
    assert re.search(r"^backbone +2.5000 +35.7%$", text, re.MULTILINE)

    path.write_text(json.dumps(benchmark))
    done = analyze(f"--op_profile={path}", status=1)
    assert "has no times of operators; write it with benchmark_tflite" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_plot_needs_latencies():
    done = analyze(MNASFPN, "--plot=a.html", status=1)
    assert done.stderr == "error: --plot: needs --latency_table or --op_profile\n"

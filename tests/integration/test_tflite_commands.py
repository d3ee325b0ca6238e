"""scripts/export_tflite.py, benchmark_tflite.py and build_latency_table.py as commands."""

import json
import zipfile

import pytest

from mnasdet import files
from mnasdet.tflite.latency.latency_table import LatencyTable
from tests.integration.commands import ROOT, run
from tests.tflite.devices.test_benchmark_model import NEW

# Few layers.
PIPELINE = """
model {
  architecture { ARCHITECTURE }
  ssd {
    num_classes: 10
    image_resizer { fixed_shape_resizer { height: 96 width: 96 } }
    box_coder { faster_rcnn_box_coder {} }
    matcher {
      argmax_matcher {
        matched_threshold: 0.5
        unmatched_threshold: 0.5
        force_match_for_each_row: true
      }
    }
    similarity_calculator { iou_similarity {} }
    encode_background_as_zeros: true
    post_processing {
      batch_non_max_suppression { score_threshold: 1e-8 iou_threshold: 0.6 }
      score_converter: SIGMOID
    }
    normalize_loc_loss_by_codesize: true
    loss {
      classification_loss { weighted_sigmoid_focal { alpha: 0.25 gamma: 1.5 } }
      localization_loss { weighted_smooth_l1 {} }
    }
  }
}
train_config {
  batch_size: 2
  num_steps: 1
  optimizer {
    momentum_optimizer {
      learning_rate { constant_learning_rate { learning_rate: 0.01 } }
      momentum_optimizer_value: 0.9
    }
  }
}
train_input_reader { digits_input_reader { num_images: 4 image_size: 64 } }
eval_config { metrics_set: "coco_detection_metrics" batch_size: 2 }
eval_input_reader { digits_input_reader { split: VALIDATION num_images: 4 image_size: 64 } }
search_config {
  search_space {
    mnasfpn {
      channels: [16]
      expanded_channels: [16, 64]
      kernel_sizes: [3]
      num_internal_blocks: 0
      repeats: 1
    }
  }
  controller { random {} }
  reward { mnasfpn {} }
  latency { latency_table {} }
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tflite")


@pytest.fixture(scope="module")
def config_path(folder):
    path = folder / "pipeline.config"
    architecture = (ROOT / "configs/architectures/mobilenet_v2_mnasfpn.textproto").read_text()
    small = architecture.replace("repeats: 4", "repeats: 1") + "depth_multiplier: 0.35"
    path.write_text(PIPELINE.replace("ARCHITECTURE", small))
    return path


@pytest.fixture(scope="module")
def graph_path(folder, config_path):
    """Exported from a checkpoint of fresh weights."""
    import tensorflow as tf

    from mnasdet import config, models
    from mnasdet.training import checkpoints

    model = models.build(config.resolve(config.load(config_path))).model
    weights = checkpoints.variables_by_name(model)
    tf.train.Checkpoint(weights=weights).save(str(folder / "train" / "ckpt"))
    done = run(
        "export_tflite",
        f"--pipeline_config_path={config_path}",
        f"--checkpoint_dir={folder / 'train'}",
        f"--output_dir={folder / 'export'}",
        "--format=json",
    )
    description = json.loads(done.stdout)
    assert description["parity"]["num_images"] == 4
    assert max(description["parity"]["max_abs_difference"].values()) < 1e-4
    assert files.read_json(folder / "export" / "export.json", "description") == description
    return folder / "export" / "detect.tflite"


def test_int8_with_suppression_is_compared(graph_path, config_path, folder):
    """Fresh weights find nothing, so that no mAP drops; less than none is allowed."""
    output = folder / "int8"
    done = run(
        "export_tflite",
        f"--pipeline_config_path={config_path}",
        f"--checkpoint_dir={folder / 'train'}",
        f"--output_dir={output}",
        "--quantization=int8",
        "--input_type=uint8",
        "--nms",
        "--nms_score_threshold=0.005",
        "--nms_type=fast",
        "--num_calibration_images=3",
        "--layer_errors",
        "--max_map_drop=-0.5",
        status=1,
    )
    (message,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "mAP drops by 0.0000, from Keras' 0.0000 to 0.0000; --max_drop allows -0.5" in message
    for step in (
        "exporting quantization int8",
        "exporting quantization fp16",
        "evaluating Keras",
        "evaluating quantization int8",
    ):
        assert step in done.stderr
    assert "suppression: fast, scores above 0.005; " in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines()[-4:]] == [
        "keras", "none", "fp16", "int8",
    ]  # fmt: skip
    assert sorted(path.name for path in output.iterdir()) == ["detect.tflite", "export.json"]
    description = json.loads((output / "export.json").read_text())
    assert description["num_calibration_images"] == 3
    assert description["input"]["dtype"] == "uint8"
    assert len(description["layer_errors"]) == 5
    assert description["suppression"]["type"] == "fast"
    assert description["suppression"]["score_threshold"] == 0.005
    assert set(description["latency_ms"]) == {"with_suppression", "network"}
    accuracy = description["accuracy"]
    assert accuracy["int8"]["bytes"] == (output / "detect.tflite").stat().st_size
    assert accuracy["none"]["bytes"] > max(accuracy[x]["bytes"] for x in ("fp16", "int8"))
    assert accuracy["int8"]["drop"] == accuracy["keras"]["mAP"] - accuracy["int8"]["mAP"]
    with zipfile.ZipFile(output / "detect.tflite") as archive:
        assert archive.read("labelmap.txt").decode().split() == list("0123456789")


def test_benchmark_prints_and_writes_the_same_json(graph_path, folder):
    output = folder / "benchmark.json"
    done = run(
        "benchmark_tflite", f"--graph={graph_path}", "--num_runs=50", f"--output={output}",
        "--format=json",
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert result["num_runs"] == 50 * len(result["repeats_ms"]) >= 150
    assert result == files.read_json(output, "result")


def test_latency_table_is_built_then_resumed(config_path, folder):
    arguments = [
        f"--pipeline_config_path={config_path}",
        f"--output={folder / 'table.textproto'}",
        "--format=json",
    ]
    done = run("build_latency_table", *arguments, "--num_fit=0", "--num_test=2")
    report = json.loads(done.stdout)
    assert (report["scale"], report["constant_ms"]) == (1.0, 0.0)
    assert report["fidelity"]["num_networks"] == 2
    assert "graph/s" in done.stderr  # the progress bar
    before = (folder / "table.textproto").read_text()
    assert report["num_layers"] == before.count("entry {") > 50
    assert before.count("network {") == 2
    assert report["fidelity"]["min_ms"] <= report["networks"][0]["latency_ms"]
    for name in ("config_sha256", "operating_system", "cpu"):
        assert f'{name}: "{report["provenance"][name]}"' in before
    # Layers and networks are there: nothing is measured but what is uncertain.
    again = run("build_latency_table", *arguments, "--num_fit=0", "--num_test=2")
    resumed = json.loads(again.stdout)
    assert resumed["num_noisy"] <= report["num_noisy"]
    if not report["num_noisy"]:
        assert resumed == report
        assert (folder / "table.textproto").read_text() == before
        assert "graph/s" not in again.stderr


def test_latency_table_of_a_phone_and_given_architectures(phone, tmp_path):
    binary = tmp_path / "benchmark_model"
    binary.write_text(f"#!/bin/sh\ncat <<'END'\n{NEW}\nEND\n")
    name = "mnasnet_small"
    done = run(
        "build_latency_table", f"--architecture={name}", f"--device=adb:{phone.serial}",
        f"--benchmark_binary={binary}", f"--output={tmp_path / 'phone.textproto'}", "--taskset=1",
        "--format=json",
    )  # fmt: skip
    report = json.loads(done.stdout)
    assert report["fidelity"] is None  # of a single network
    (network,) = report["networks"]
    # As the binary prints them, and no layer takes longer than the graph that does nothing.
    assert (network["latency_ms"], network["noisy"]) == (9.2, False)
    assert network["predicted_ms"] == 0
    table = LatencyTable.load(tmp_path / "phone.textproto")
    assert len(table.entries) == report["num_layers"] > 20
    assert set(table.entries.values()) == {0.0}
    for name, value in {"model": "Phone 7", "taskset": "1", "device": "adb"}.items():
        assert table.provenance[name] == report["provenance"][name] == value
    assert list(phone.tmp.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (
            "export_tflite",
            ["--checkpoint_dir=a", "--output_dir=a", "--pipeline_config_path=a", "--nms_type=fast"],
            "--nms_type: needs --nms",
        ),
        ("benchmark_tflite", ["--graph=a", "--device=adb"], "--device=adb: needs --benchmark_bi"),
        ("benchmark_tflite", ["--graph=a.tflite"], "a.tflite: no such file"),
        ("build_latency_table", ["--device=adb"], "--device=adb: needs --benchmark_binary"),
        ("build_latency_table", [], "give --pipeline_config_path, --architecture or both"),
        ("build_latency_table", ["--pipeline_config_path=a"], "a: no such file"),
        ("build_latency_table", ["--architecture=a"], 'no architecture "a"; one of'),
    ],
)
def test_bad_flags_give_one_line(script, arguments, message):
    done = run(script, *arguments, status=1)
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert message in line

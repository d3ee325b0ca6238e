"""mnasdet/tflite/export.py and the detections of what it writes."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil

import numpy as np
import pytest

from mnasdet import config, files, models
from mnasdet.deployment import export
from mnasdet.detectors.post_processing import PostProcessing
from mnasdet.errors import UserError
from mnasdet.protos import pipeline_pb2, post_processing_pb2
from mnasdet.tflite import export as exporting
from mnasdet.tflite.interpreter import TfliteModel, detection_function, load
from tests.full_disk import full_disk


@pytest.fixture(scope="module")
def exported(small_detector, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    return folder, export(small_detector, folder)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(-1, 1, (4, 96, 64, 3)).astype(np.float32)


@pytest.fixture
def pipeline():
    config = pipeline_pb2.TrainEvalPipelineConfig()
    resizer = config.model.ssd.image_resizer.fixed_shape_resizer
    resizer.height, resizer.width = 96, 64
    config.model.ssd.box_coder.faster_rcnn_box_coder.SetInParent()
    config.model.ssd.post_processing.batch_non_max_suppression.score_threshold = 1e-8
    config.model.ssd.post_processing.score_converter = post_processing_pb2.PostProcessing.SIGMOID
    config.model.architecture_name = "mobilenet_v2_mnasfpn"
    return config


def test_description_is_what_was_written(small_detector, exported):
    folder, description = exported
    assert files.read_json(folder / "export.json", "description") == description
    assert sorted(p.name for p in folder.iterdir()) == [
        "anchors.npy",
        "detect.tflite",
        "export.json",
    ]
    for name, size in description["bytes"].items():
        content = (folder / name).read_bytes()
        assert len(content) == size
        digest = hashlib.sha256(content).hexdigest()
        assert description["files"][name] == {"bytes": size, "sha256": digest}
    assert description["input"]["shape"] == [1, 96, 64, 3]
    assert description["outputs"]["box_encodings"]["shape"] == [1, 1152, 4]
    assert description["box_coder_scales"] == [10.0, 10.0, 5.0, 5.0]
    assert max(description["parity"]["max_abs_difference"].values()) < 1e-4
    np.testing.assert_array_equal(np.load(folder / "anchors.npy"), small_detector.anchors)


def test_parity_is_of_the_images_given(small_detector, tmp_path):
    images = np.zeros((1, 96, 64, 3), np.float32)
    description = export(small_detector, tmp_path, images=images, quantization="fp16")
    raw = TfliteModel(tmp_path / "detect.tflite").predict(images)["box_encodings"]
    expected = small_detector.model(images, training=False)["box_encodings"].numpy()
    assert description["parity"]["num_images"] == 1
    assert description["parity"]["max_abs_difference"]["box_encodings"] == pytest.approx(
        float(np.abs(raw - expected).max()), rel=1e-5
    )


def test_detects_what_keras_detects(small_detector, exported, pipeline):
    images = np.random.default_rng(2).uniform(-1, 1, (2, 96, 64, 3)).astype(np.float32)
    found = detection_function(config.resolve(pipeline), exported[0] / "detect.tflite")(images)
    expected = small_detector.predict(images)
    assert set(found) == set(expected)
    np.testing.assert_array_equal(found["num_detections"], expected["num_detections"])
    np.testing.assert_allclose(found["detection_scores"], expected["detection_scores"], atol=1e-4)


def test_detection_wants_the_config_of_the_export(exported, pipeline, tmp_path):
    graph = exported[0] / "detect.tflite"
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.height = 64
    with pytest.raises(UserError, match="takes images of 96x64, the pipeline config has 64x64"):
        detection_function(config.resolve(pipeline), graph)
    pipeline.model.ssd.image_resizer.fixed_shape_resizer.height = 96
    alone = tmp_path / "alone.tflite"
    alone.write_bytes(graph.read_bytes())
    with pytest.raises(UserError, match=r"anchors\.npy: no such file"):
        detection_function(config.resolve(pipeline), alone)


ANOTHERS = "is not the file that export.json describes"
DAMAGES = {
    # As with a copy that was interrupted, or one of half of an export.
    "new graph": ("detect.tflite", lambda content: content[:-4] + b"new!", ANOTHERS),
    "cut graph": ("detect.tflite", lambda content: content[:-100], ANOTHERS),
    "new anchors": ("anchors.npy", lambda content: content[:-4] + b"new!", ANOTHERS),
    "cut anchors": ("anchors.npy", lambda content: content[:-100], ANOTHERS),
    "no anchors": ("anchors.npy", None, "no such file; export_tflite writes it"),
    "no graph": ("detect.tflite", None, "no such file; a TFLite graph is needed"),
    "cut description": ("export.json", lambda content: content[:-100], "is cut or damaged"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_an_export_that_does_not_belong_together_is_refused(exported, pipeline, tmp_path, name):
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    file, change, message = DAMAGES[name]
    if change is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(change((folder / file).read_bytes()))
    with pytest.raises(UserError) as caught:
        detection_function(config.resolve(pipeline), folder / "detect.tflite")
    assert str(caught.value).startswith(f"{folder}/{file}: {message}")
    assert "export" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_export_of_an_older_version_is_read(exported, pipeline, tmp_path):
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    described = json.loads((folder / "export.json").read_text())
    for name in ("files", "sha256"):
        del described[name]
    (folder / "export.json").write_text(json.dumps(described))
    (folder / "detect.tflite").write_bytes((folder / "detect.tflite").read_bytes() + b"more")
    detection_function(config.resolve(pipeline), folder / "detect.tflite")
    (folder / "export.json").unlink()
    detection_function(config.resolve(pipeline), folder / "detect.tflite")


# The files of another export, to be written in the place of the first.
ANOTHER = {"detect.tflite": b"\0\0\0\0TFL3", "anchors.npy": bytes(20_000)}

LEFT = (
    [],
    ["detect.tflite"],  # Without its anchors, which is an error: not beside the old ones.
    ["anchors.npy", "detect.tflite"],
)


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("renames", range(len(LEFT)))
def test_what_ends_an_export_leaves_no_description_of_other_files(
    exported, tmp_path, monkeypatch, renames, linked
):
    """As a kill does between two of its renames."""
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    if linked:
        disk = folder.rename(tmp_path / "disk")
        folder.mkdir()
        for path in disk.iterdir():
            (folder / path.name).symlink_to(path)
    replace, done = os.replace, []

    def dying(old, new):
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(new)
        replace(old, new)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt):
        exporting._write(folder, ANOTHER, {"graph": "detect.tflite"})
    # Links to nothing stay.
    assert sorted(path.name for path in folder.iterdir() if path.exists()) == LEFT[renames]


def test_links_stay_and_what_they_lead_to_is_replaced(tmp_path, monkeypatch):
    """As where a run keeps its graphs on another disk."""
    folder, disk = tmp_path / "export", tmp_path / "disk"
    folder.mkdir()
    disk.mkdir()
    for name in (*ANOTHER, "export.json"):
        (disk / f"{name}-5").write_text("old")
        (folder / name).symlink_to(f"../disk/{name}-5")
    replace, replaced = os.replace, []
    monkeypatch.setattr(os, "replace", lambda old, new: replaced.append(new) or replace(old, new))
    exporting._write(folder, ANOTHER, {"graph": "detect.tflite"})
    for name in (*ANOTHER, "export.json"):
        assert os.readlink(folder / name) == f"../disk/{name}-5"
    assert {name: (disk / f"{name}-5").read_bytes() for name in ANOTHER} == ANOTHER
    described = files.read_json(disk / "export.json-5", "description")
    assert described == {"graph": "detect.tflite"}
    assert [path.name for path in replaced] == ["detect.tflite-5", "anchors.npy-5", "export.json-5"]
    assert len(list(disk.iterdir())) == 3


def test_a_full_disk_leaves_the_export_before(exported, pipeline, tmp_path):
    folder = shutil.copytree(exported[0], tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with full_disk(10_000), pytest.raises(OSError) as caught:
        exporting._write(folder, ANOTHER, {"graph": "detect.tflite"})
    assert caught.value.filename == f"{folder}/anchors.npy"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    detection_function(config.resolve(pipeline), folder / "detect.tflite")


def test_detects_what_keras_detects_with_suppression_in_the_graph(
    small_detector, pipeline, tmp_path
):
    images = np.random.default_rng(2).uniform(-1, 1, (2, 96, 64, 3)).astype(np.float32)
    description = export(
        small_detector, tmp_path, images=images, nms=True, nms_score_threshold=1e-8
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["detect.tflite", "export.json"]
    assert description["outputs"] == {
        "detection_boxes": {"shape": [1, 100, 4]},
        "detection_classes": {"shape": [1, 100]},
        "detection_scores": {"shape": [1, 100]},
        "num_detections": {"shape": [1]},
    }
    assert "anchors" not in description
    found = detection_function(config.resolve(pipeline), tmp_path / "detect.tflite")(images)
    expected = small_detector.predict(images)
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-4, err_msg=name)


def test_two_kinds_in_one_folder(small_detector, images, tmp_path):
    export(small_detector, tmp_path, images=images)
    export(
        small_detector,
        tmp_path,
        images=images,
        nms=True,
        nms_type="fast",
        graph_name="detect_nms.tflite",
    )
    raw = json.loads((tmp_path / "export.json").read_text())
    nms = json.loads((tmp_path / "export_nms.json").read_text())
    assert [raw["graph"], nms["graph"]] == ["detect.tflite", "detect_nms.tflite"]
    assert list(raw["bytes"]) == ["detect.tflite", "anchors.npy"]
    assert list(nms["bytes"]) == ["detect_nms.tflite"]
    for described in (raw, nms):
        model = TfliteModel(tmp_path / described["graph"])
        assert model.output_names == sorted(described["outputs"])
    assert "suppression" not in raw
    assert nms["suppression"] == {
        "type": "fast",
        "score_threshold": 0.02,
        "iou_threshold": 0.6,
        "max_detections": 100,
        "num_candidates": 1000,
    }
    latency_ms = nms["latency_ms"]
    assert 0 < latency_ms["network"] < 1.1 * latency_ms["with_suppression"]


def test_suppression_that_takes_longer_than_the_network_is_warned_of(
    small_detector, images, tmp_path, caplog
):
    """Nothing suppresses anything, and all locations count."""
    slow = PostProcessing(iou_threshold=1.0, max_detections=1152, max_detections_per_class=1152)
    detector = dataclasses.replace(small_detector, post_processing=slow)
    with caplog.at_level(logging.WARNING):
        # Random noise tells nothing of what a picture takes.
        assert "latency_ms" not in export(detector, tmp_path, nms=True)
        assert "suppression" not in caplog.text
        description = export(detector, tmp_path, images=images, nms=True, nms_score_threshold=0.0)
    assert "the suppression takes longer than the network: with it" in caplog.text
    latency_ms = description["latency_ms"]
    assert latency_ms["with_suppression"] > 2 * latency_ms["network"]


def test_suppression_of_ninety_classes_is_cheap(coco_pipeline, tmp_path):
    """It took thirty times as long as the network, with the config's threshold and all 6885
    locations. Now it takes 1.1 times as long; twice leaves room for a busy machine."""
    resizer = coco_pipeline.model.ssd.image_resizer.fixed_shape_resizer
    resizer.height = resizer.width = 192
    images = np.random.default_rng(0).uniform(-1, 1, (3, 192, 192, 3)).astype(np.float32)
    detector = models.build(config.resolve(coco_pipeline))
    description = export(detector, tmp_path, images=images, nms=True)
    assert description["num_classes"] == 90
    latency_ms = description["latency_ms"]
    assert latency_ms["with_suppression"] < 2 * latency_ms["network"]


def test_two_exports_are_equal(small_detector, images, tmp_path):
    for folder in ("one", "two"):
        export(
            small_detector,
            tmp_path / folder,
            images=images,
            quantization="int8",
            calibration_images=images,
            labels={1: "cat"},
        )
    one, two = ((tmp_path / name / "detect.tflite").read_bytes() for name in ("one", "two"))
    assert one == two
    outputs = load(one, 1, "one").get_output_details()
    assert [output["name"] for output in outputs] == [
        "box_encodings",
        "class_predictions_with_background",
    ]
    signature = load(one, 1, "one").get_signature_list()["serving_default"]
    assert signature["outputs"] == [output["name"] for output in outputs]


@pytest.mark.parametrize(
    ("input_type", "quantization", "normalisation"),
    [
        ("float32", "int8", "x * 2 / 255 - 1"),
        ("uint8", "int8", "none: pixels; the input's scale and zero point make x * 2 / 255 - 1"),
        ("uint8", "fp16", "none: pixels; the graph begins with x * 2 / 255 - 1"),
    ],
)
def test_says_what_becomes_of_the_pixels(
    small_detector, images, tmp_path, input_type, quantization, normalisation
):
    description = export(
        small_detector,
        tmp_path,
        images=images,
        quantization=quantization,
        input_type=input_type,
        calibration_images=images,
        with_layer_errors=input_type == "uint8",
    )
    assert description["input"]["dtype"] == input_type
    assert description["input"]["normalisation"].startswith(normalisation)
    # Six of 256 steps, or half a pixel.
    assert max(description["parity"]["max_abs_difference"].values()) < 2
    if quantization == "int8":
        assert description["num_calibration_images"] == len(images)
    layers = description.get("layer_errors")
    if quantization == "int8" and input_type == "uint8":
        assert len(layers) == 5
        assert "detector/" in layers[0]["tensor"]
        assert 1 > layers[0]["relative_error"] >= layers[-1]["relative_error"] > 0
    else:
        assert layers is None

"""MediaPipe's ObjectDetector opens the files for apps and finds what they were trained to find.

MediaPipe needs other versions of protobuf and numpy than TensorFlow, so it gets a virtualenv of its
own, which is kept in ~/.cache/mnasdet-tests.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

from tests.integration.commands import ROOT, run

# The message of pip if the registry has no wheel for this Python or this machine.
_NO_WHEEL = "No matching distribution found"


@pytest.fixture(scope="module")
def mediapipe_python():
    """The Python of a virtualenv with MediaPipe. It takes a minute to install, once."""
    name = f"mediapipe-{sys.version_info.major}.{sys.version_info.minor}"
    folder = Path.home() / ".cache" / "mnasdet-tests" / name
    if not folder.exists():
        # Under its name it is complete, whatever ends this process meanwhile.
        partial = folder.with_name(f"{name}.{os.getpid()}")
        venv.create(partial, with_pip=True)
        done = subprocess.run(
            [partial / "bin/python", "-m", "pip", "install", "--only-binary=:all:", "mediapipe"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            shutil.rmtree(partial)
            offline = "onnection" in done.stderr
            if os.environ.get("CI") and (offline or _NO_WHEEL not in done.stderr):
                pytest.fail(f"pip install mediapipe: {done.stderr}")
            pytest.skip(f"mediapipe cannot be installed: {done.stderr.strip().splitlines()[-1]}")
        try:
            partial.rename(folder)
        except OSError:  # Another process was faster.
            shutil.rmtree(partial)
    return folder / "bin/python"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mediapipe")


@pytest.fixture(scope="module")
def pipeline_path(folder):
    """The quickstart, smaller; it learns the eight pictures that it is evaluated on by heart."""
    text = (ROOT / "configs" / "quickstart.config").read_text().partition("search_config {")[0]
    for old, new in {
        "num_steps: 300": "num_steps: 100",
        "total_steps: 300": "total_steps: 100",
        "warmup_steps: 30": "warmup_steps: 10",
        "num_images: 800 image_size: 128": "num_images: 8 image_size: 64",
        "split: VALIDATION num_images: 100 image_size: 128": "num_images: 8 image_size: 64",
        "height: 128 width: 128": "height: 64 width: 64",
        "depth_multiplier: 0.5": "depth_multiplier: 0.35",
        "repeats: 2": "repeats: 1",
    }.items():
        assert old in text, f"{old!r} is not in quickstart.config any more"
        text = text.replace(old, new)
    path = folder / "pipeline.config"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def best(pipeline_path, folder):
    """The folder that a search leaves behind: of a training, deployed."""
    from mnasdet import config, deployment
    from mnasdet.training import checkpoints, trainer

    pipeline = config.load(pipeline_path)
    trainer.train(pipeline, folder / "best", seed=0)
    task = checkpoints.load_task(pipeline, folder / "best")
    deployment.deploy(task, pipeline, folder / "best")
    return folder / "best"


def digits(pipeline_path):
    """Pictures, uint8, and for each the boxes in pixels and the names of its digits."""
    from mnasdet import config
    from mnasdet.evaluation.evaluate import evaluation_set

    pipeline = config.load(pipeline_path)
    (batch,) = evaluation_set(pipeline, config.resolve(pipeline).resizer).as_numpy_iterator()
    pictures = np.rint((batch["image"] + 1) * 127.5).astype(np.uint8)
    objects = [
        [
            (box * 64, str(label - 1))
            for box, label in zip(boxes[:count], labels[:count], strict=True)
        ]
        for boxes, labels, count in zip(
            batch["boxes"], batch["classes"], batch["num_boxes"], strict=True
        )
    ]
    return pictures, objects


def iou(one, other):
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = np.prod(np.maximum(high - low, 0))
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return shared / (area(one) + area(other) - shared)


def assert_mediapipe_finds(python, graph, pipeline_path, folder):
    pictures, objects = digits(pipeline_path)
    np.save(folder / "pictures.npy", pictures)
    script = ROOT / "tests" / "integration" / "mediapipe_detections.py"
    done = subprocess.run(
        [python, script, graph, folder / "pictures.npy"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == len(objects) == 8
    right = [
        any(
            iou(detection["box"], box) > 0.5 and detection["name"] == name
            for detection in detections
            for box, name in there
        )
        for detections, there in zip(found, objects, strict=True)
    ]
    assert sum(right) >= 7


def test_finds_digits_with_the_file_of_a_search(mediapipe_python, best, pipeline_path, folder):
    assert_mediapipe_finds(mediapipe_python, best / "detect_nms.tflite", pipeline_path, folder)


def test_finds_digits_with_an_int8_file(mediapipe_python, best, pipeline_path, folder):
    run(
        "export_tflite",
        f"--pipeline_config_path={pipeline_path}",
        f"--checkpoint_dir={best}",
        f"--output_dir={folder / 'int8'}",
        "--quantization=int8",
        "--input_type=uint8",
        "--nms",
    )
    accuracy = json.loads((folder / "int8" / "export.json").read_text())["accuracy"]
    assert list(accuracy) == ["keras", "int8"]
    assert accuracy["int8"]["drop"] < 0.1
    graph = folder / "int8" / "detect.tflite"
    assert_mediapipe_finds(mediapipe_python, graph, pipeline_path, folder)


def test_the_files_of_a_search_say_what_they_find_and_take(best):
    described = json.loads((best / "export_nms.json").read_text())
    # By heart. Of a set as small as this one the mAP is there unasked.
    assert described["accuracy"]["keras"]["mAP"] > 0.9
    assert abs(described["accuracy"]["none"]["drop"]) < 0.005
    timed = json.loads((best / "benchmark.json").read_text())
    assert timed["provenance"]["graph_sha256"] != timed["nms"]["provenance"]["graph_sha256"]
    for result in (timed, timed["nms"]):
        assert 0 < result["min_ms"] <= result["median_ms"]
    assert timed["nms"]["model_bytes"] == (best / "detect_nms.tflite").stat().st_size


def test_image_classifier_names_the_classes(mediapipe_python, tmp_path):
    from mnasdet import config, deployment, models
    from mnasdet.blueprint import Blueprint
    from mnasdet.data.image_resizer import ImageResizer
    from mnasdet.protos import classification_pb2

    names = {1: "cat", 2: "dog", 3: "große Maus"}
    task = models.build(
        Blueprint(
            kind="classification",
            architecture=config.load_architecture("mnasnet_small"),
            resizer=ImageResizer((32, 48)),
            num_classes=3,
            settings=classification_pb2.Classification(num_classes=3),
        )
    )
    deployment.export(task, tmp_path, labels=names)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 48, 3), np.uint8)
    np.save(tmp_path / "pictures.npy", pictures)
    script = ROOT / "tests" / "integration" / "mediapipe_classes.py"
    done = subprocess.run(
        [mediapipe_python, script, tmp_path / "classify.tflite", tmp_path / "pictures.npy"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    images = pictures.astype(np.float32) * 2 / 255 - 1
    for of_picture, expected in zip(found, task.predict(images)["probabilities"], strict=True):
        assert set(of_picture) == set(names.values())
        probabilities = [of_picture[names[class_id]] for class_id in (1, 2, 3)]
        np.testing.assert_allclose(probabilities, expected, atol=1e-3)

"""Pictures in, boxes and JSON out: the command, with an untrained detector."""

import json
import subprocess
import sys

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image

from tests.integration.commands import ROOT, run

WIDTH, HEIGHT = 90, 60


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_config):
    """A folder with a checkpoint and its config, and in nms/ and raw/ the exported files."""
    import tensorflow as tf

    from mnasdet import config, models
    from mnasdet.data import input_pipeline
    from mnasdet.deployment import export
    from mnasdet.training import checkpoints

    folder = tmp_path_factory.mktemp("model")
    (folder / "tiny.config").write_text(tiny_config)
    pipeline = config.load(folder / "tiny.config")
    (folder / "pipeline.config").write_text(text_format.MessageToString(pipeline))
    detector = models.build(config.resolve(pipeline))
    weights = checkpoints.variables_by_name(detector.model)
    checkpoint = tf.train.Checkpoint(**{checkpoints.WEIGHTS: weights})
    tf.train.CheckpointManager(checkpoint, str(folder), max_to_keep=1).save()
    names = input_pipeline.label_map(pipeline.eval_input_reader[0])
    for kind in ("nms", "raw"):
        export(detector, folder.parent / kind, nms=kind == "nms", labels=names)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two pictures of one name, one of them turned by EXIF, and a broken one."""
    folder = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    turned = Image.Exif()
    turned[0x112] = 6
    (folder / "more").mkdir()
    Image.fromarray(pixels).save(folder / "more" / "a.jpg", exif=turned)
    (folder / "broken.jpg").write_text("no picture")
    return folder


def check(result, folder):
    """Checks the entries of the photos in detections.json."""
    shapes = [(image["width"], image["height"]) for image in result["images"]]
    assert shapes == [(WIDTH, HEIGHT), (HEIGHT, WIDTH)]
    assert [image["drawn"] for image in result["images"]] == ["a.jpg", "a-2.jpg"]
    for image in result["images"]:
        assert Image.open(folder / image["drawn"]).size == (image["width"], image["height"])
        scores = [found["score"] for found in image["detections"]]
        assert scores == sorted(scores, reverse=True)
        assert scores
        for found in image["detections"]:
            x, y, width, height = found["bbox"]
            assert 0 <= x < x + width <= image["width"] + 0.01
            assert 0 <= y < y + height <= image["height"] + 0.01
            assert found["category"] == str(found["category_id"] - 1)
    (skipped,) = result["skipped"]
    assert skipped["file"].endswith("broken.jpg")
    assert "not a picture" in skipped["reason"]


def test_with_a_checkpoint(model, photos, tmp_path):
    found = tmp_path / "found"
    flags = [f"--checkpoint_dir={model}", f"--images={photos}", f"--output_dir={found}"]
    done = run("detect", *flags, "--score_threshold=0.001", "--format=json")
    result = json.loads(done.stdout)
    assert json.loads((found / "detections.json").read_text()) == result
    check(result, found)
    assert "skipped: " in done.stderr


def test_with_a_checkpoint_at_a_url(model, photos, tmp_path):
    """TensorFlow's file system in memory ends with a process, so the folder is put there by it."""
    found = tmp_path / "found"
    script = f"""
import pathlib, runpy, sys
import tensorflow as tf
tf.io.gfile.makedirs("ram://run")
for file in pathlib.Path({str(model)!r}).iterdir():
    tf.io.gfile.copy(str(file), "ram://run/" + file.name)
sys.argv = ["detect.py", "--checkpoint_dir=ram://run", "--images={photos}",
            "--output_dir={found}", "--score_threshold=0.001"]
runpy.run_path("scripts/detect.py", run_name="__main__")
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    check(json.loads((found / "detections.json").read_text()), found)


def test_with_a_file_for_apps_that_has_no_config(model, photos, tmp_path):
    found = tmp_path / "found"
    graph = f"--tflite_path={model.parent}/nms/detect.tflite"
    flags = [graph, f"--images={photos}", f"--output_dir={found}", "--score_threshold=0.001"]
    done = run("detect", *flags)
    check(json.loads((found / "detections.json").read_text()), found)
    assert "pictures are stretched to 64x64" in done.stderr
    assert done.stdout.splitlines()[-1].endswith(f"1 skipped: {found}/detections.json")


def test_none_that_can_be_read_is_an_error(model, photos, tmp_path):
    graph = f"--tflite_path={model.parent}/raw/detect.tflite"
    flags = [f"--images={photos}/broken.jpg", f"--output_dir={tmp_path}/found"]
    raw = run("detect", graph, *flags, status=1)
    assert "gives raw predictions" in raw.stderr
    config = f"--pipeline_config_path={model}/tiny.config"
    done = run("detect", graph, config, *flags, status=1)
    assert done.stderr.endswith("error: none of 1 pictures could be read\n")
    assert "broken.jpg: not a picture" in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--images=x"], "give one of --checkpoint_dir, --saved_model_path and --tflite_path"),
        (["--checkpoint_dir=x", "--images=nowhere"], "--images: nowhere: no such file or folder"),
        (["--checkpoint_dir=x", "--images={empty}"], "no pictures in the folder {empty}"),
        (["--checkpoint_dir=x", "--images={photos}"], "results would stand among the pictures"),
    ],
)
def test_mistakes_get_one_line(photos, tmp_path, flags, message):
    names = {"photos": photos, "empty": tmp_path}
    output = photos if "among" in message else tmp_path / "found"
    done = run(
        "detect", *(flag.format(**names) for flag in flags), f"--output_dir={output}", status=1
    )
    assert message.format(**names) in done.stderr
    assert done.stderr.count("\n") == 1

"""Folders with signs that TensorFlow takes for patterns, from records to the exported graph."""

import shutil

import numpy as np
import pytest

from mnasdet import config
from mnasdet.data import digits, input_pipeline
from mnasdet.deployment import export
from mnasdet.errors import CheckpointError
from mnasdet.evaluation.evaluate import first_images
from mnasdet.tflite.devices.device import DeviceSpec
from mnasdet.tflite.devices.factory import opened
from mnasdet.tflite.interpreter import detection_function
from mnasdet.training import checkpoints, trainer
from mnasdet.training.literal_paths import literal


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "run[1]*a? b\\c \n ü"
    folder.mkdir()
    # A pattern would find this folder instead.
    (tmp_path / "run1X").mkdir()
    return folder


@pytest.fixture
def pipeline(tiny_config, base):
    """Reads records in the folder, one by its name and one by a pattern."""
    (records,), label_map = digits.records("train", 24, 64)
    for name in ("train[1].record", "eval-1.record"):
        shutil.copy(records, base / name)
    shutil.copy(label_map, base / "label_map[1].pbtxt")
    (base / "tiny[1].config").write_text(tiny_config)
    loaded = config.load(
        base / "tiny[1].config",
        train_input=[f"{base}/train[1].record"],
        eval_input=[f"{base}/eval-?.record"],
        label_map=f"{base}/label_map[1].pbtxt",
    )
    loaded.train_config.num_steps = 1
    return loaded


def test_a_whole_way_in_such_a_folder(base, pipeline):
    (reader,) = pipeline.eval_input_reader
    assert input_pipeline.input_files(reader) == [f"{base}/eval-1.record"]
    run = base / "out[put]"
    trainer.train(pipeline, run)
    # The folder's own config is read again: paths are quoted in it.
    again = config.load(run / "pipeline.config")
    again.train_config.num_steps = 2
    assert trainer.train(again, run)["step"] == 2
    assert checkpoints.find(run) == f"{run}/ckpt-2"
    assert list((run / "tensorboard").glob("events*"))
    detector = checkpoints.load_task(again, run / "best")
    images = first_images(again, detector.blueprint.resizer, 2)
    export(detector, run / "tflite", images=images)
    detect = detection_function(config.resolve(again), run / "tflite" / "detect.tflite")
    expected = detector.predict(images)["detection_scores"]
    np.testing.assert_allclose(detect(images)["detection_scores"], expected, atol=1e-4)
    with opened(DeviceSpec()) as device:
        assert device.quick_ms([run / "tflite" / "detect.tflite"])[0] > 0


def test_a_damaged_checkpoint_is_told_by_its_own_name(base):
    (base / "ckpt-1.index").write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError) as caught:
        checkpoints.find(base)
    assert str(caught.value).startswith(f"{base}/ckpt-1: not a readable checkpoint: ")
    assert literal(base) not in str(caught.value)
    with pytest.raises(CheckpointError, match="no checkpoint in this folder"):
        checkpoints.find(base.parent)


def test_plain_paths_stay_as_they_are(tmp_path, base):
    assert literal(tmp_path / "run 1" / "ckpt-3") == f"{tmp_path}/run 1/ckpt-3"
    assert literal(base / "ckpt-3") == f"{literal(base)}/ckpt-3"
    assert literal(base) == literal(f"{base}")

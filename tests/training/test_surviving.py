"""Tests that a training's folder stays sound after a signal, damage, NaN or another config."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import config, files
from mnasdet.data import input_pipeline
from mnasdet.data import label_map as label_maps
from mnasdet.data.image_resizer import ImageResizer
from mnasdet.errors import CheckpointError, UserError
from mnasdet.evaluation.coco import MAP
from mnasdet.training import checkpoints, run_files, trainer, training_data
from tests.full_disk import full_disk


@pytest.fixture(autouse=True)
def _all_logs(caplog):
    caplog.set_level("INFO", logger="absl")


@pytest.fixture
def pipeline(tiny_pipeline):
    tiny_pipeline.train_config.checkpoint_every_n_steps = 2
    tiny_pipeline.train_config.num_steps = 4
    return tiny_pipeline


@pytest.fixture(scope="module")
def trained(tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.config").write_text(tiny_config)
    pipeline = config.load(folder / "tiny.config")
    pipeline.train_config.checkpoint_every_n_steps = 2
    pipeline.train_config.num_steps = 4
    trainer.train(pipeline, folder / "run")
    return folder / "run"


@pytest.fixture
def folder(trained, tmp_path):
    """A training of four steps, with the checkpoints of the second and the last."""
    return shutil.copytree(trained, tmp_path / "run")


def go_on(pipeline, folder):
    pipeline.train_config.num_steps = 6
    return trainer.train(pipeline, folder)


def data_file(folder, step):
    return next(folder.glob(f"ckpt-{step}.data*"))


def is_finite(prefix):
    reader = tf.train.load_checkpoint(prefix)
    values = map(reader.get_tensor, reader.get_variable_to_shape_map())
    return all(np.isfinite(value).all() for value in values if isinstance(value, np.ndarray))


def test_a_nan_is_named_at_its_step_and_reaches_no_checkpoint(pipeline, tmp_path, monkeypatch):
    pipeline.train_config.num_steps = 9
    # A checkpoint is written by time where no steps are named: here after each of them.
    pipeline.train_config.checkpoint_every_n_steps = 0
    monkeypatch.setattr(trainer, "_SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    sound = training_data.training_set

    def poisoned(task, pipeline, seed, start=0):
        for step, batch in enumerate(sound(task, pipeline, seed, start), start=start + 1):
            yield batch | {"image": batch["image"] * (np.nan if step == 7 else 1)}

    monkeypatch.setattr(training_data, "training_set", poisoned)
    with pytest.raises(trainer.DivergedError) as caught:
        trainer.train(pipeline, tmp_path)
    ids = input_pipeline.training_dataset(
        pipeline.train_input_reader,
        resizer=ImageResizer((8, 8)),
        batch_size=8,
        augmentations=(),
        transform=lambda example: example["source_id"],
        seed=0,
    )
    seen = next(iter(ids.skip(6))).numpy().astype(str)
    assert (
        "the loss became NaN or infinite at step 7; first in the input image; "
        f"its images: {', '.join(seen[:5])} and 3 more; a lower learning rate"
    ) in str(caught.value)
    assert f"goes on from {tmp_path}/ckpt-6" in str(caught.value)
    kept = checkpoints.all_in(tmp_path)
    assert [prefix.rpartition("-")[2] for prefix in kept] == ["5", "6"]
    assert all(map(is_finite, kept))


def test_weights_that_a_finite_loss_hides_are_not_evaluated(pipeline, monkeypatch):
    """The loss of a step is that of the weights before it."""
    pipeline.train_config.num_steps = 1
    update = trainer.Learner._update

    def overflowing(self, losses, batch):
        values = update(self, losses, batch)
        kernel = self.model.trainable_variables[0]
        kernel.assign(tf.fill(kernel.shape, np.inf))
        return values

    monkeypatch.setattr(trainer.Learner, "_update", overflowing)
    with pytest.raises(
        trainer.DivergedError, match=r"backbone/stem/layer_1/conv/kernel became NaN or"
    ):
        trainer.train(pipeline)


TRAIN = """
import sys
from mnasdet import config
from mnasdet.errors import UserError
from mnasdet.training import trainer
pipeline = config.load(sys.argv[1])
pipeline.train_config.num_steps = int(sys.argv[3])
pipeline.train_config.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate.total_steps = 10000
after_step = trainer._Run.after_step
def told(self, step, *arguments):
    print(step, flush=True)
    after_step(self, step, *arguments)
trainer._Run.after_step = told
try:
    trainer.train(pipeline, sys.argv[2])
except UserError as error:
    sys.exit(str(error))
"""  # noqa: E501


def test_a_signal_ends_the_training_after_a_step_that_is_saved(tiny_config, tmp_path):
    path, run = tmp_path / "tiny.config", tmp_path / "run"
    path.write_text(tiny_config)
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN, str(path), str(run), "10000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGTERM)
    steps, errors = process.communicate(timeout=60)
    last = int(steps.split()[-1]) if steps else 1
    assert process.returncode == 1, errors
    assert f"stopped by SIGTERM after step {last} of 10000, which is saved in {run}" in errors
    assert checkpoints.find(run) == f"{run}/ckpt-{last}"


def test_damaged_files_are_passed_over(pipeline, folder, caplog):
    """As a machine leaves them that lost its power. An older version's folder lacks two files."""
    file = data_file(folder, 4)
    file.write_bytes(file.read_bytes()[:1000])
    (folder / "checkpoint").write_text("")
    metrics = folder / "metrics.json"
    metrics.write_text(metrics.read_text()[:50])
    for name in (run_files.CONFIG_FILE, run_files.LABEL_MAP_FILE):
        (folder / name).unlink()
    assert go_on(pipeline, folder)["step"] == 6
    assert f"{folder}/ckpt-4: the checkpoint is damaged" in caplog.text
    assert f"going on from {folder}/ckpt-2" in caplog.text
    assert f"{metrics}: is cut or damaged" in caplog.text
    assert "; the best checkpoint is sought anew" in caplog.text
    assert json.loads(metrics.read_text())["best"][MAP] >= 0
    assert len(checkpoints.all_in(folder)) == 2  # The rotation knows the older ones.
    assert (folder / run_files.LABEL_MAP_FILE).exists()


def test_a_checkpoint_with_nan_is_passed_over(pipeline, folder, caplog):
    detector = checkpoints.load_task(pipeline, folder)
    name, variable = next(iter(checkpoints.variables_by_name(detector.model).items()))
    variable.assign(variable * np.nan)
    weights = {checkpoints.WEIGHTS: checkpoints.variables_by_name(detector.model)}
    tf.train.Checkpoint(**weights).write(f"{folder}/ckpt-9")
    assert checkpoints.find(folder) == f"{folder}/ckpt-4"
    assert f"{folder}/ckpt-9: {name} has values that are NaN or infinite" in caplog.text


def test_no_sound_checkpoint_is_an_error_and_not_a_fresh_start(pipeline, folder):
    for step in (2, 4):
        data_file(folder, step).unlink()
    with pytest.raises(CheckpointError, match="no checkpoint of the folder is sound"):
        go_on(pipeline, folder)
    assert len(checkpoints.all_in(folder)) == 2


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(pipeline, folder):
    with full_disk(100_000), pytest.raises(CheckpointError) as caught:
        go_on(pipeline, folder)
    assert "\n" not in str(caught.value)
    assert f"{folder}: the checkpoint of step 6 cannot be written: " in str(caught.value)
    assert str(caught.value).endswith(f"; the newest one is {folder}/ckpt-4")
    assert not list(folder.glob("ckpt-6*"))


def test_two_trainings_cannot_share_a_folder(pipeline, folder):
    with files.locked(folder), pytest.raises(UserError, match="another process is at work in"):
        go_on(pipeline, folder)


def test_a_folder_holds_what_was_used(pipeline, folder):
    for place in (folder, folder / "best"):
        kept = config.load(place / "pipeline.config")
        assert kept.train_config == pipeline.train_config
        assert not kept.HasField("search_config")
        assert label_maps.load(place / "label_map.pbtxt")[1] == "0"


MNASFPN = "model.architecture.feature_pyramid.mnasfpn"
OTHERS = {
    "architecture.feature_pyramid.mnasfpn.repeats is 1 in the folder, 2 in the config": (
        "model { architecture { feature_pyramid { mnasfpn { repeats: 2 } } } }"
    ),
    "model.architecture.input.height is 64 in the folder, 96 in the config": (
        "model { ssd { image_resizer { fixed_shape_resizer { height: 96 } } } }"
    ),
    "train_config.optimizer.momentum_optimizer is set in the folder, not set in the config": (
        "train_config { optimizer { adam_optimizer {} } }"
    ),
    "graph_rewriter is not set in the folder, set in the config": (
        "graph_rewriter { quantization { delay: 1 } }"
    ),
}


@pytest.mark.parametrize("difference", OTHERS)
def test_a_training_does_not_go_on_as_another(pipeline, folder, difference):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    text_format.Merge(OTHERS[difference], pipeline)
    with pytest.raises(CheckpointError) as caught:
        go_on(pipeline, folder)
    assert f"{folder} holds checkpoints of another training: " in str(caught.value)
    assert difference in str(caught.value)
    assert f"--fine_tune_checkpoint={folder}" in str(caught.value)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert after == before


def test_a_training_does_not_go_on_with_other_classes(pipeline, folder):
    labels = label_maps.load(folder / "label_map.pbtxt")
    label_maps.save(folder / "label_map.pbtxt", labels | {3: labels[4], 4: labels[3]})
    with pytest.raises(CheckpointError, match="class 3 is '3' in the folder, '2' in the"):
        go_on(pipeline, folder)
    with pytest.raises(CheckpointError, match="was trained for other classes: class 3 is"):
        checkpoints.load_task(pipeline, folder)


def test_another_image_size_is_warned_of(pipeline, folder, caplog):
    size = pipeline.model.ssd.image_resizer.fixed_shape_resizer
    size.height = size.width = 96
    checkpoints.load_task(pipeline, folder)
    assert f"{folder} was trained at 64x64; the config has 96x96" in caplog.text

"""Training on a few digits: repeatable, resumable, honest about failure."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from mnasdet import config, files, models
from mnasdet.errors import CheckpointError
from mnasdet.evaluation.coco import MAP, METRICS
from mnasdet.training import checkpoints, runtime, trainer, training_data
from mnasdet.training.learner import Learner
from mnasdet.training.warm_start import load


def weights(folder):
    reader = tf.train.load_checkpoint(checkpoints.find(folder))
    keys = sorted(key for key in reader.get_variable_to_shape_map() if key.startswith("weights/"))
    return {key: reader.get_tensor(key) for key in keys}


@pytest.fixture(scope="module")
def first_run(tiny_config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    (folder / "tiny.config").write_text(tiny_config)
    return folder / "run", trainer.train(config.load(folder / "tiny.config"), folder / "run")


@pytest.fixture
def trained(tiny_pipeline, first_run, tmp_path):
    """The pipeline, the folder and the metrics of a training, each for the test alone."""
    folder, metrics = first_run
    return tiny_pipeline, shutil.copytree(folder, tmp_path / "run"), dict(metrics)


def test_a_run_leaves_its_files_and_metrics(trained):
    _, folder, metrics = trained
    assert set(METRICS) < set(metrics)
    assert metrics["step"] == 8
    written = files.read_json(folder / "metrics.json", "metrics file")
    assert written == metrics | {"best": metrics}
    assert config.load_architecture(str(folder / "architecture.textproto"))
    assert list((folder / "tensorboard").iterdir())
    assert checkpoints.find(folder / "best").endswith("ckpt-8")


def test_the_same_seed_gives_the_same_weights_to_the_bit(trained, tmp_path):
    pipeline, folder, metrics = trained
    again = trainer.train(pipeline, tmp_path / "again")
    assert again[MAP] == metrics[MAP]
    first, second = weights(folder), weights(tmp_path / "again")
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])
    trainer.train(pipeline, tmp_path / "other", seed=1)
    assert any((weights(tmp_path / "other")[key] != first[key]).any() for key in first)


def test_a_run_goes_on_from_its_newest_checkpoint(tiny_pipeline, tmp_path, caplog):
    tiny_pipeline.train_config.num_steps = 3
    tiny_pipeline.train_config.checkpoint_every_n_steps = 2
    trainer.train(tiny_pipeline, tmp_path)
    tiny_pipeline.train_config.num_steps = 5
    assert trainer.train(tiny_pipeline, tmp_path)["step"] == 5
    assert checkpoints.find(tmp_path).endswith("ckpt-5")


def test_training_lowers_the_loss(tiny_pipeline):
    runtime.seed_everything(0)
    detector = models.build(config.resolve(tiny_pipeline))
    learner = Learner(detector, tiny_pipeline.train_config)
    batch = next(iter(training_data.training_set(detector, tiny_pipeline, 0)))
    losses = [float(learner.update(batch)["Loss/total_loss"]) for _ in range(8)]
    assert losses[-1] < 0.9 * losses[0]


def test_parts_are_normalised_each_and_their_losses_added(tiny_pipeline):
    def losses(batch, parts):
        runtime.seed_everything(0)
        tiny_pipeline.train_config.parallel_parts = parts
        detector = models.build(config.resolve(tiny_pipeline))
        learner = Learner(detector, tiny_pipeline.train_config)
        return learner.update(batch)["Loss/classification_loss"]

    detector = models.build(config.resolve(tiny_pipeline))
    batch = next(iter(training_data.training_set(detector, tiny_pipeline, 0)))
    middle = len(batch["image"]) // 2
    halves = [
        {name: value[part] for name, value in batch.items()}
        for part in (slice(None, middle), slice(middle, None))
    ]
    # A loss is divided by the matches of its batch.
    matches = [tf.reduce_sum(tf.cast(half["class_targets"] > 0, tf.float32)) for half in halves]
    alone = sum(losses(half, 1) * number for half, number in zip(halves, matches, strict=True))
    np.testing.assert_allclose(losses(batch, 2), alone / sum(matches), rtol=1e-4)


def test_every_kernel_moves(tiny_pipeline):
    runtime.seed_everything(0)
    detector = models.build(config.resolve(tiny_pipeline))
    learner = Learner(detector, tiny_pipeline.train_config)
    kernels = [v for v in detector.model.trainable_variables if "kernel" in v.name]
    before = [kernel.numpy() for kernel in kernels]
    learner.update(next(iter(training_data.training_set(detector, tiny_pipeline, 0))))
    still = [
        kernel.name
        for kernel, old in zip(kernels, before, strict=True)
        if np.array_equal(old, kernel.numpy())
    ]
    assert kernels
    assert still == []


def test_moving_averages_are_what_is_evaluated_and_loaded(tiny_pipeline, tmp_path):
    tiny_pipeline.train_config.optimizer.use_moving_average = True
    tiny_pipeline.eval_config.use_moving_averages = True
    trainer.train(tiny_pipeline, tmp_path)
    reader = tf.train.load_checkpoint(checkpoints.find(tmp_path))
    detector = checkpoints.load_task(tiny_pipeline, tmp_path)
    name, variable = next(iter(checkpoints.variables_by_name(detector.model).items()))
    average = reader.get_tensor(checkpoints._key("averages", name))
    np.testing.assert_array_equal(variable, average)
    assert (average != reader.get_tensor(checkpoints._key("weights", name))).any()


def test_a_loss_that_is_no_number_ends_the_run(tiny_pipeline):
    cosine = tiny_pipeline.train_config.optimizer.momentum_optimizer.learning_rate
    cosine.cosine_decay_learning_rate.learning_rate_base = 1e20
    with pytest.raises(trainer.DivergedError, match=r"training diverged: the loss became NaN or"):
        trainer.train(tiny_pipeline)


def test_a_warm_start_takes_what_fits(trained, tmp_path):
    pipeline, folder, _ = trained
    pipeline.model.ssd.num_classes = 4  # The class predictor does not fit any more.
    detector = models.build(config.resolve(pipeline))
    everything = len(detector.model.variables)
    assert len(load.load(detector.model, folder).matched) == everything - 2
    with pytest.raises(CheckpointError, match=rf"{everything - 2} of {everything} variables match"):
        checkpoints.load_weights(detector.model, folder)


def test_checkpoints_that_cannot_be_used(trained, tmp_path):
    pipeline, folder, _ = trained
    model = models.build(config.resolve(pipeline)).model
    with pytest.raises(CheckpointError, match="empty: no checkpoint in this folder"):
        (tmp_path / "empty").mkdir()
        checkpoints.load_weights(model, tmp_path / "empty")
    with pytest.raises(CheckpointError, match="nowhere: no such checkpoint"):
        checkpoints.load_weights(model, tmp_path / "nowhere")
    broken = tmp_path / "broken.index"
    broken.write_bytes(b"no checkpoint")
    with pytest.raises(CheckpointError, match="broken: not a readable checkpoint"):
        checkpoints.load_weights(model, broken)
    index = next(folder.glob("ckpt-*.index"))
    data = next(folder.glob("ckpt-*.data*"))
    data.write_bytes(data.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="the checkpoint is damaged"):
        checkpoints.load_weights(model, index)

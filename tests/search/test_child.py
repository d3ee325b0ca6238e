"""Tests the outcome of a child, whatever happens to it."""

import math

import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet import config, models
from mnasdet.errors import CheckpointError, ConfigError, DataError
from mnasdet.evaluation.coco import MAP
from mnasdet.protos import train_pb2
from mnasdet.search import child
from mnasdet.search.child import ChildTask, Outcome, trained
from mnasdet.tflite.convert import convert
from mnasdet.training import trainer
from mnasdet.training.trainer import DivergedError

TASK = ChildTask(b"", "", 0)


def test_metrics_that_are_no_numbers_are_a_reason():
    for value, written in ((math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")):
        outcome = trained({"loss": 1.0, MAP: value}, MAP)
        assert outcome.error == f"DetectionBoxes_Precision/mAP is {written}"
        assert outcome.metrics == {}
    assert trained({MAP: -1.0}, MAP).error is None


def test_the_accuracy_is_the_metric_that_the_child_names():
    metrics = {MAP: 0.25, "Classification/top_1": 0.75}
    assert trained(metrics, MAP).accuracy == 0.25
    assert trained(metrics, "Classification/top_1").accuracy == 0.75
    # pycocotools says -1 where there is nothing to find.
    assert trained({MAP: -1.0}, MAP).accuracy == 0.0


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (DivergedError("the loss is nan"), "the loss is nan"),
        (ConfigError("level 7 of an image of 64 pixels"), "level 7 of an image of 64 pixels"),
        (MemoryError(), "out of memory: MemoryError"),
        (MemoryError("Unable to allocate 9 GiB\nmore"), "out of memory: Unable to allocate 9 GiB"),
        (tf.errors.ResourceExhaustedError(None, None, "OOM"), "out of memory: OOM"),
    ],
)
def test_what_goes_wrong_with_one_child_is_its_outcome(monkeypatch, raised, error):
    def run(task):
        raise raised

    monkeypatch.setattr(child, "run", run)
    assert child.run_safely(TASK) == Outcome(error=error)


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (DataError("train.record: does not exist"), "train.record: does not exist"),
        (CheckpointError("cannot be written: disk quota"), "cannot be written: disk quota"),
        (FileNotFoundError(2, "gone", "a.record"), "[Errno 2] gone: 'a.record'"),
        (
            tf.errors.ResourceExhaustedError(None, None, "a.tmp; No space left on device\nstack"),
            "a.tmp; No space left on device",
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "a.tmp; Disk quota exceeded"),
            "a.tmp; Disk quota exceeded",
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "a.record; Too many open files"),
            "a.record; Too many open files",
        ),
        (
            tf.errors.ResourceExhaustedError(None, None, "b; Too many open files in system"),
            "b; Too many open files in system",
        ),
        (tf.errors.UnavailableError(None, None, "socket closed\nstack"), "socket closed"),
        (tf.errors.InternalError(None, None, ""), "InternalError"),
    ],
)
def test_what_goes_wrong_around_a_child_says_nothing_about_it(monkeypatch, raised, error):
    def run(task):
        raise raised

    monkeypatch.setattr(child, "run", run)
    assert child.run_safely(TASK) == Outcome(error=error, environmental=True)


@pytest.mark.parametrize(("folder", "model_dir"), [("", None), ("/models/a", "/models/a")])
def test_a_child_trains_with_its_pipeline_folder_architecture_and_seed(
    tiny_pipeline, monkeypatch, folder, model_dir
):
    def train(pipeline, given_dir, *, blueprint, seed):
        tiny_pipeline.train_config.jit_compile = train_pb2.TrainConfig.OFF
        assert pipeline == tiny_pipeline
        assert (given_dir, blueprint.image_size, seed) == (model_dir, (96, 160), 5)
        return {MAP: 0.25}

    monkeypatch.setattr(trainer, "train", train)
    task = ChildTask(
        tiny_pipeline.SerializeToString(), "input { height: 96 width: 160 }", 5, folder=folder
    )
    assert child.run_safely(task) == trained({MAP: 0.25}, MAP)


@pytest.mark.parametrize(
    ("num_steps", "asked", "used"),
    [(9_999, "AUTO", "OFF"), (10_000, "AUTO", "AUTO"), (10, "ON", "ON"), (10_000, "OFF", "OFF")],
)
def test_only_a_long_child_is_compiled_unasked(tiny_pipeline, monkeypatch, num_steps, asked, used):
    def train(pipeline, *arguments, **options):
        assert train_pb2.TrainConfig.JitCompile.Name(pipeline.train_config.jit_compile) == used
        return {MAP: 0.25}

    monkeypatch.setattr(trainer, "train", train)
    tiny_pipeline.train_config.num_steps = num_steps
    tiny_pipeline.train_config.jit_compile = train_pb2.TrainConfig.JitCompile.Value(asked)
    architecture = text_format.MessageToString(config.resolve(tiny_pipeline).architecture)
    child.run(ChildTask(tiny_pipeline.SerializeToString(), architecture, 5))


def test_a_network_with_too_large_a_file_is_rejected_untrained(tiny_pipeline, monkeypatch):
    def train(*arguments, **options):
        return {MAP: 0.25}

    monkeypatch.setattr(trainer, "train", train)
    architecture = text_format.MessageToString(config.resolve(tiny_pipeline).architecture)
    size = len(convert(models.build(config.resolve(tiny_pipeline)).model))

    def outcome(max_file_size):
        return child.run_safely(
            ChildTask(tiny_pipeline.SerializeToString(), architecture, 5, max_file_size)
        )

    assert outcome(size) == trained({MAP: 0.25}, MAP)
    assert outcome(size - 1) == Outcome(
        error=f"the TFLite file has {size:,} bytes; limits.max_file_size is {size - 1:,}",
        rejected=True,
    )


def test_a_bug_of_ours_stays_one(monkeypatch):
    monkeypatch.setattr(child, "run", lambda task: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        child.run_safely(TASK)

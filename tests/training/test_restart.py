"""A training that is killed and started again ends as one that never was."""

import functools
import itertools
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import text_format

from mnasdet.protos import pipeline_pb2
from mnasdet.training import checkpoints, trainer
from tests.training import killed_training

SCRIPT = Path(killed_training.__file__)


def test_a_killed_training_ends_as_one_that_was_not(tmp_path):
    """To the bit: weights, averages, optimizer, metrics and best checkpoint."""
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert len(found["killed_after"]) == 2
    assert found["killed"] == found["whole"]


class Killed(BaseException):
    """Ends a training at once, as no handler of it expects."""


@pytest.fixture
def pipeline():
    pipeline = text_format.Parse(killed_training.CONFIG, pipeline_pb2.TrainEvalPipelineConfig())
    pipeline.train_config.num_steps = 6
    pipeline.train_config.eval_every_n_steps = 2
    return pipeline


def test_killed_between_a_checkpoint_and_its_metrics(pipeline, tmp_path, monkeypatch):
    whole = trainer.train(pipeline, tmp_path / "whole")

    def killed(self, model_dir, step):
        if step == 4:
            raise Killed
        keep(self, model_dir, step)

    keep = trainer._Run._keep_metrics
    monkeypatch.setattr(trainer._Run, "_keep_metrics", killed)
    with pytest.raises(Killed):
        trainer.train(pipeline, tmp_path / "killed")
    monkeypatch.undo()
    evaluated = []
    evaluate = trainer._Run._evaluate
    monkeypatch.setattr(
        trainer._Run,
        "_evaluate",
        lambda self, step, **named: evaluated.append(step) or evaluate(self, step, **named),
    )
    kept = tf.train.load_checkpoint(checkpoints.find(tmp_path / "killed"))
    seconds = kept.get_tensor(f"{checkpoints.SECONDS}/.ATTRIBUTES/VARIABLE_VALUE")
    # While this clock hardly moves, only the seconds count that were counted before.
    clock = types.SimpleNamespace(monotonic=functools.partial(next, itertools.count(0, 1e-6)))
    monkeypatch.setattr(trainer, "time", clock)
    again = trainer.train(pipeline, tmp_path / "killed")
    assert evaluated == [4, 6]
    assert again["train_seconds"] == pytest.approx(seconds, abs=0.11)
    assert killed_training.end(tmp_path / "killed") == killed_training.end(tmp_path / "whole")
    assert again["step"] == whole["step"] == 6

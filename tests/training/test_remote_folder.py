"""A training whose data and folder are on another file system."""

import json
import secrets

import tensorflow as tf

from mnasdet.data import input_pipeline
from mnasdet.training import checkpoints, trainer
from tests.training import small_classifier


def test_a_training_reads_writes_and_goes_on_there():
    address = f"ram://{secrets.token_hex(8)}"
    pipeline = small_classifier.pipeline()
    for name, reader in (
        ("train", pipeline.train_input_reader),
        ("eval", pipeline.eval_input_reader[0]),
    ):
        (record,) = input_pipeline.input_files(reader)
        labels = input_pipeline._label_map_path(reader)
        tf.io.gfile.makedirs(f"{address}/data")
        tf.io.gfile.copy(record, f"{address}/data/{name}.record", overwrite=True)
        tf.io.gfile.copy(labels, f"{address}/data/{name}.pbtxt", overwrite=True)
        reader.tf_record_input_reader.input_path.append(f"{address}/data/{name}.rec*")
        reader.label_map_path = f"{address}/data/{name}.pbtxt"
    run = f"{address}/run"
    for num_steps in (2, 4):
        pipeline.train_config.num_steps = num_steps
        metrics = trainer.train(pipeline, run)
    names = tf.io.gfile.listdir(run)
    assert {"ckpt-4.index", "pipeline.config", "metrics.json", "best", "tensorboard"} <= set(names)
    # The newest two, of both runs.
    assert sorted(name for name in names if name.endswith(".index")) == [
        "ckpt-2.index",
        "ckpt-4.index",
    ]
    with tf.io.gfile.GFile(f"{run}/metrics.json") as file:
        assert json.load(file)["step"] == metrics["step"] == 4
    task = checkpoints.load_task(pipeline, run)
    newest = checkpoints.load_task(pipeline, f"{run}/ckpt-4")
    for one, other in zip(task.model.variables, newest.model.variables, strict=True):
        assert (one.numpy() == other.numpy()).all()

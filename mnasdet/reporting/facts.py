"""The settings of a search in words: the reward, the data, the trainings, the command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from mnasdet import config
from mnasdet.data import input_pipeline
from mnasdet.protos import input_reader_pb2, pipeline_pb2, search_pb2, train_pb2
from mnasdet.search import axes, stages
from mnasdet.search.axes import Axes

# To count boxes, all records are read; of larger sets that takes minutes.
_MOST_COUNTED_BYTES = 2_000_000_000


def of_search(
    pipeline: pipeline_pb2.TrainEvalPipelineConfig, arguments: Sequence[str] | None = None
) -> dict[str, str]:
    """Returns names and values for people.

    Args:
      arguments: of the command; those of this process if left out.
    """
    settings = pipeline.search_config
    program, *flags = sys.argv if arguments is None else arguments
    retraining = settings.HasField("retrain_config")
    first, *later = map(_of_stage, stages.pipelines(pipeline))
    different = {
        f"second stage, {name}": value
        for second in later
        for name, value in second.items()
        if value != first[name]
    }
    return {
        **first,
        **different,
        "training set": data_set(pipeline.train_input_reader),
        "evaluation set": data_set(pipeline.eval_input_reader[0]),
        "classes": f"{config.resolve(pipeline).num_classes}",
        "the best one's training": _training(
            settings.retrain_config if retraining else stages.pipelines(pipeline)[-1].train_config
        ),
        "command": shlex.join([Path(program).name, *flags]),
    }


def _of_stage(pipeline: pipeline_pb2.TrainEvalPipelineConfig) -> dict[str, str]:
    """Returns what each stage of a search may have of its own."""
    settings = pipeline.search_config
    return {
        "reward": reward(settings.reward, axes.from_config(pipeline)),
        "latency": latency_source(settings.latency),
        "a child's training": _training(pipeline.train_config),
    }


def reward(config: search_pb2.RewardConfig, axes: Axes) -> str:
    """Returns the kind and the formula, with the target where it has one."""
    name, metric = config.WhichOneof("reward_oneof"), axes.accuracy
    if name == "mnasfpn":
        return f"mnasfpn: {metric} × latency^{config.mnasfpn.exponent:g}, no target"
    if name == "mnasnet":
        own = config.mnasnet
        return (
            f"mnasnet: {metric} × (latency / target)^w, target {own.target_latency_ms:g} "
            f"{axes.unit}, w {own.alpha:g} up to it, {own.beta:g} above"
        )
    if name == "tunas":
        own_tunas = config.tunas
        return (
            f"tunas: {metric} + {own_tunas.beta:g} × |latency / target - 1|, target "
            f"{own_tunas.target_latency_ms:g} {axes.unit}"
        )
    if name == "accuracy":
        return f"accuracy: {metric}"
    return f"multi_objective: {metric}; the controller weighs latency itself"


def latency_source(config: search_pb2.LatencyConfig) -> str:
    """Returns what latency the search went by."""
    match config.WhichOneof("latency_oneof"):
        case "multiply_adds":
            return "multiply-adds in place of milliseconds"
        case "host":
            return "whole networks, measured on the machine that the search ran on"
        case "adb":
            return "whole networks, measured on a phone"
        case "predict":
            return "detection from image to boxes, timed in TensorFlow on the search's machine"
    path = config.latency_table.path
    table = Path(path).name if path else "this machine's own"
    return f"the sum over a table of single layers ({table})"


def data_set(reader: input_reader_pb2.InputReader) -> str:
    """Returns files, pictures and boxes: "data/a-*.record: 2 files, 100 pictures, 240 boxes"."""
    if reader.WhichOneof("input_reader") == "digits_input_reader":
        split = input_reader_pb2.DigitsInputReader.Split.Name(reader.digits_input_reader.split)
        name = f"embedded digits, {split.lower()}"
    else:
        name = ", ".join(reader.tf_record_input_reader.input_path)
    files = input_pipeline.input_files(reader)
    counted = f"{len(files)} file{'s' * (len(files) != 1)}"
    if sum(tf.io.gfile.stat(file).length for file in files) <= _MOST_COUNTED_BYTES:
        pictures, boxes = _count(files)
        counted += f", {pictures:,} pictures"
        if reader.features == input_reader_pb2.InputReader.BOXES:
            counted += f", {boxes:,} boxes"  # Also none: that explains an mAP of -1.
    return f"{name}: {counted}"


def _count(files: Sequence[str]) -> tuple[int, int]:
    """Counts records and their boxes."""
    # One side of the boxes is enough to count them; pictures are not decoded.
    features = {"image/object/bbox/xmin": tf.io.VarLenFeature(tf.float32)}
    batches = tf.data.TFRecordDataset(list(files)).batch(64)
    pictures = boxes = 0
    for batch in batches:
        pictures += int(tf.shape(batch)[0])
        parsed = tf.io.parse_example(batch, features)
        boxes += len(parsed["image/object/bbox/xmin"].values)
    return pictures, boxes


def _training(config: train_pb2.TrainConfig) -> str:
    return f"{config.num_steps:,} steps of {config.batch_size} pictures"

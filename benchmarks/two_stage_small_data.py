"""Detectors of one and of two stages in the same time, on few pictures.

Three are trained, one after the other, each in a process of its own: a detector of two stages like
SM-NAS's E0, and the same as a cascade that judges twice, with group normalisation and standardised
weights; and our FPNLite over MobileNetV2, as wide as needed for about as many multiply-adds as the
first has, by the recipe of mnasfpn_mobilenet_v2_bccd.config. Each gets the same processor time: a
few steps of each are timed first, and its schedule is cut to the number of steps that fit.
Compiling and evaluating do not count.

They start from random weights. With --fine_tune_checkpoint, weights of MobileNetV2 1.0 as
`train.py` takes them, all three have that backbone and start from it.

Written to --output_dir: table.json, index.html with the accuracy over the seconds of training, and
the folder of each training.

  python benchmarks/two_stage_small_data.py --train_records='data/train.record-*' \\
    --eval_records='data/val.record-*' --label_map=data/label_map.pbtxt \\
    --output_dir=runs/two_stage_small_data
  python benchmarks/two_stage_small_data.py --train_records='data/train.record-*' \\
    --eval_records='data/val.record-*' --label_map=data/label_map.pbtxt \\
    --output_dir=runs/warm --seconds=300 --fine_tune_checkpoint=mobilenet_v2.safetensors
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import app, flags

FLAGS = flags.FLAGS
ROOT = Path(__file__).parents[1]

flags.DEFINE_string("train_records", None, "Training records.", required=True)
flags.DEFINE_string("eval_records", None, "Evaluation records.", required=True)
flags.DEFINE_string("label_map", None, "Label map.", required=True)
flags.DEFINE_string("output_dir", None, "Folder of the results; made if missing.", required=True)
flags.DEFINE_float("seconds", 600, "Of each training, all cores at work.", lower_bound=1)
flags.DEFINE_integer("evaluations", 6, "Points of each curve.", lower_bound=1)
flags.DEFINE_string("fine_tune_checkpoint", "", "Weights that the backbones start from.")
flags.DEFINE_enum("train", None, ["timed", "whole"], "Internal: a process of one detector.")
flags.DEFINE_string("folder", None, "Internal: of the detector.")

_MAP, _AP50 = "DetectionBoxes_Precision/mAP", "DetectionBoxes_Precision/mAP@.50IOU"

# Steps that are timed, after those that compile and warm up.
_WARMUP, _TIMED = 2, 8

_TWO_STAGES = Path(__file__).with_suffix(".config")
_ONE_STAGE = ROOT / "configs" / "mnasfpn_mobilenet_v2_bccd.config"

# Widths of FPNLite's backbone and pyramid, so fine that multiply-adds agree within some percent.
_WIDTHS = [step / 20 for step in range(5, 41)]


def loaded(path: Path, change: Callable[[Any], None]) -> Any:
    from mnasdet import config

    return config.load(
        path,
        train_input=[FLAGS.train_records],
        eval_input=[FLAGS.eval_records],
        label_map=FLAGS.label_map,
        fine_tune_checkpoint=FLAGS.fine_tune_checkpoint,
        change=change,
    )


def pipelines() -> dict[str, Any]:
    """Returns the three configs, by names for people."""
    from mnasdet.data import label_map

    num_classes = max(label_map.load(FLAGS.label_map))

    def two_stages(pipeline: Any) -> None:
        pipeline.model.faster_rcnn.num_classes = num_classes
        if FLAGS.fine_tune_checkpoint:
            backbone = pipeline.model.architecture.backbone
            backbone.mobilenet_v2.SetInParent()
            backbone.conv_hyperparams.CopyFrom(_mobile_hyperparams())
        _start(pipeline)

    def cascade(pipeline: Any) -> None:
        two_stages(pipeline)
        pipeline.model.architecture.region_head.stage.add(
            iou_threshold=0.6, box_scales=[20.0, 20.0, 10.0, 10.0], loss_weight=0.5
        )

    def one_stage(pipeline: Any) -> None:
        pipeline.model.ssd.num_classes = num_classes
        _start(pipeline)
        _put_fpnlite(pipeline, _WIDTHS[0])

    widths = [1.0] if FLAGS.fine_tune_checkpoint else _WIDTHS
    found = {
        "two stages": loaded(_TWO_STAGES, two_stages),
        "cascade of 2": loaded(_TWO_STAGES, cascade),
        "FPNLite": loaded(_ONE_STAGE, one_stage),
    }
    aim = multiply_adds(found["two stages"])

    def distance(width: float) -> float:
        _put_fpnlite(found["FPNLite"], width)
        return abs(multiply_adds(found["FPNLite"]) - aim)

    _put_fpnlite(found["FPNLite"], min(widths, key=distance))
    return found


def _start(pipeline: Any) -> None:
    if FLAGS.fine_tune_checkpoint:
        pipeline.train_config.fine_tune_checkpoint_type = "classification"


def _mobile_hyperparams() -> Any:
    """Returns the hyper-parameters of the one-stage recipe's backbone."""
    from mnasdet import text_proto
    from mnasdet.protos import pipeline_pb2

    pipeline = text_proto.read(_ONE_STAGE, pipeline_pb2.TrainEvalPipelineConfig)
    return pipeline.model.ssd.feature_extractor.conv_hyperparams


def _put_fpnlite(pipeline: Any, width: float) -> None:
    """Puts the OD API's FPNLite in place of the config's architecture."""
    from mnasdet import config

    pipeline.model.architecture.CopyFrom(config.load_architecture("mobilenet_v2_fpnlite_64"))
    architecture = pipeline.model.architecture
    architecture.depth_multiplier = width
    architecture.feature_pyramid.fpn.max_level = 6
    hyperparams = pipeline.model.ssd.feature_extractor.conv_hyperparams
    architecture.backbone.conv_hyperparams.CopyFrom(hyperparams)
    architecture.feature_pyramid.conv_hyperparams.CopyFrom(hyperparams)


def multiply_adds(pipeline: Any) -> int:
    from mnasdet import config, models
    from mnasdet.networks.cost import cost_sheet

    return cost_sheet(models.network(config.resolve(pipeline))).total.multiply_adds


def timed(pipeline: Any) -> float:
    """Returns the processor seconds of a step of training."""
    from mnasdet import config, models
    from mnasdet.training import runtime, training_data
    from mnasdet.training.learner import Learner

    runtime.use_threads()
    runtime.seed_everything(0)
    task = models.build(config.resolve(pipeline))
    learner = Learner(task, pipeline.train_config, keep_averages=True)
    batches = iter(training_data.training_set(task, pipeline, seed=0))
    for step in range(_WARMUP + _TIMED):
        if step == _WARMUP:
            start = time.process_time()
        float(learner.update(next(batches))["Loss/total_loss"])
    return (time.process_time() - start) / _TIMED


def cut(pipeline: Any, num_steps: int) -> None:
    """Cuts the schedule to a number of steps."""
    training = pipeline.train_config
    cosine = training.optimizer.momentum_optimizer.learning_rate.cosine_decay_learning_rate
    cosine.warmup_steps = cosine.warmup_steps * num_steps // cosine.total_steps
    training.num_steps = cosine.total_steps = num_steps
    training.eval_every_n_steps = max(1, num_steps // FLAGS.evaluations)


def whole(pipeline: Any, folder: Path) -> dict[str, Any]:
    """Trains; returns the metrics and the curve, [step, mAP] each."""
    from mnasdet.training import runtime, trainer

    runtime.use_threads()
    start = time.process_time()
    metrics = trainer.train(pipeline, folder / "run")
    return {
        "AP": metrics[_MAP],
        "AP50": metrics[_AP50],
        "steps": pipeline.train_config.num_steps,
        "seconds": metrics["train_seconds"],
        "process_seconds": time.process_time() - start,
        "curve": curve(folder / "run" / "tensorboard"),
    }


def curve(folder: Path) -> list[tuple[int, float]]:
    """Returns the mAP of every evaluation, from the files for TensorBoard."""
    import tensorflow as tf
    from tensorflow.core.util import event_pb2

    points = {}
    for path in sorted(folder.glob("events.*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = event_pb2.Event.FromString(record)
            for value in event.summary.value:
                if value.tag == _MAP:
                    points[event.step] = float(tf.make_ndarray(value.tensor))
    return sorted(points.items())


def done_in_a_process(job: str, pipeline: Any, folder: Path) -> Any:
    """Returns what `timed` or `whole` gives, in a process of its own."""
    from mnasdet import config, files

    files.write(folder / "benchmark.config", config.to_text(pipeline))
    command = [sys.executable, __file__, *sys.argv[1:], f"--train={job}", f"--folder={folder}"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}
    subprocess.run(command, check=True, env=environment)
    return json.loads((folder / f"{job}.json").read_text())


def do(job: str, folder: Path) -> None:
    from mnasdet import config

    pipeline = config.load(folder / "benchmark.config")
    result = timed(pipeline) if job == "timed" else whole(pipeline, folder)
    (folder / f"{job}.json").write_text(json.dumps(result))


def write_page(path: Path, table: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the curves: accuracy over seconds of training."""
    import plotly.graph_objects as go
    from markupsafe import Markup

    from mnasdet import files
    from mnasdet.reporting import page

    figure = page.figure("seconds of training", "mAP")
    for name, row in table.items():
        seconds = [row["seconds"] * step / row["steps"] for step, _ in row["curve"]]
        accuracy = [value for _, value in row["curve"]]
        figure.add_trace(go.Scatter(x=seconds, y=accuracy, mode="lines+markers", name=name))
    figure.update_layout(showlegend=True)
    rows = {
        name: f"mAP {row['AP']:.4f}, AP50 {row['AP50']:.4f}, "
        f"{row['multiply_adds'] / 1e6:.0f} M multiply-adds, {row['steps']} steps"
        for name, row in table.items()
    }
    content = page.chart("Accuracy over time", figure, "chart large") + page.details(rows)
    body = page.section("The same time for each", content)
    files.write(path, page.html("one and two stages", Markup(body)))


def main(argv: list[str]) -> None:
    del argv
    if FLAGS.train:
        do(FLAGS.train, Path(FLAGS.folder))
        return
    from mnasdet import cores, files

    folder = Path(FLAGS.output_dir)
    table: dict[str, dict[str, Any]] = {}
    found = pipelines()
    budget = FLAGS.seconds * len(cores.available())
    for name, pipeline in found.items():
        own = folder / name.replace(" ", "_")
        step_seconds = done_in_a_process("timed", pipeline, own)
        cut(pipeline, max(1, int(budget / step_seconds)))
        result = done_in_a_process("whole", pipeline, own)
        table[name] = {"multiply_adds": multiply_adds(pipeline), **result}
        files.write_json(folder / "table.json", table)
        write_page(folder / "index.html", table)
    print("                mAP    AP50  M multiply-adds   steps  seconds")
    for name, row in table.items():
        print(
            f"{name:13}{row['AP']:6.4f}  {row['AP50']:6.4f}  {row['multiply_adds'] / 1e6:15.1f}  "
            f"{row['steps']:6d}  {row['seconds']:7.0f}"
        )
    print(f"curves: {folder}/index.html")


if __name__ == "__main__":
    app.run(main)

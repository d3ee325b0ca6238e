"""Evaluates a trained detector or classifier, or a TFLite file, on the evaluation set.

  python scripts/evaluate.py --pipeline_config_path=runs/bccd/pipeline.config \\
    --checkpoint_dir=runs/bccd/best
  python scripts/evaluate.py --pipeline_config_path=runs/bccd/pipeline.config \\
    --tflite_path=runs/bccd/tflite/detect.tflite

A classifier has its top-1 and top-5. Beside a detector's COCO metrics and the mAP of every class
stands what the best constant boxes reach: for each class one fixed box on every picture, chosen on
the evaluation set itself (ConstantBoxes_…). A model that is level with them has learnt nothing but
where objects usually are. In JSON, -1 stands for what cannot be measured, such as the mAP of large
objects where there are none.

A detector that was trained with a predictor after every repeat of its pyramid (deep_supervision)
may stop at any of them: --every_exit gives the mAP of each and its latency on this host.
"""

from __future__ import annotations

import json
import tempfile
from typing import Any

from absl import flags

from mnasdet import files
from mnasdet.errors import UserError
from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_pipeline_flags()
command.define_format_flag()
flags.DEFINE_string(
    "checkpoint_dir", None, "Folder of a training run, or one checkpoint; or else --tflite_path."
)
flags.DEFINE_string("tflite_path", None, "A file from export_tflite; or else --checkpoint_dir.")
flags.DEFINE_string("output", None, "Where to write the metrics as JSON as well.")
flags.DEFINE_integer(
    "exit",
    0,
    "The repeat of the pyramid, from 1, whose predictor detects; 0: the last.",
    lower_bound=0,
)
flags.DEFINE_bool(
    "every_exit", False, "Evaluate every exit, one after the other, with its latency on this host."
)


def main() -> None:
    if bool(FLAGS.checkpoint_dir) == bool(FLAGS.tflite_path):
        raise UserError("give either --checkpoint_dir or --tflite_path")
    if FLAGS.tflite_path and (FLAGS.every_exit or FLAGS["exit"].value):
        raise UserError("--exit and --every_exit need --checkpoint_dir; a graph has one exit")
    pipeline = command.load_pipeline(readers=("eval_input_reader",))
    if pipeline.model.HasField("classification") and (FLAGS.every_exit or FLAGS["exit"].value):
        raise UserError("--exit and --every_exit are for detectors; a classifier has one exit")
    if FLAGS.every_exit:
        print_exits(evaluate_exits(pipeline))
        return

    # Only here: what is wrong with the flags or the config is told before TensorFlow loads.
    from mnasdet import config, deployment, models
    from mnasdet.evaluation import baseline
    from mnasdet.evaluation.evaluate import evaluate_pipeline
    from mnasdet.training import checkpoints, runtime

    runtime.log_devices()
    predict = None
    if FLAGS.tflite_path:
        task = models.build(config.resolve(pipeline))
        predict = deployment.predict_function(task.blueprint, FLAGS.tflite_path)
    else:
        task = checkpoints.load_task(pipeline, FLAGS.checkpoint_dir, FLAGS["exit"].value)
    metrics = evaluate_pipeline(task, pipeline, predict, per_category=True, with_baseline=True)
    if baseline.verdict(metrics):
        metrics["ConstantBoxes_Level"] = baseline.is_level(metrics)
    command.print_metrics(metrics, FLAGS.output)


def evaluate_exits(pipeline) -> list[dict[str, Any]]:
    """Returns the metrics of every exit, with its median latency_ms on this host."""
    from mnasdet.architectures import num_exits
    from mnasdet.evaluation.evaluate import evaluate_pipeline
    from mnasdet.evaluation.metric_text import display_name
    from mnasdet.tflite.convert import convert, is_quantized
    from mnasdet.tflite.devices.device import DeviceSpec
    from mnasdet.tflite.devices.factory import opened
    from mnasdet.training import checkpoints

    architecture = checkpoints.load_blueprint(pipeline, FLAGS.checkpoint_dir).architecture
    exits = []
    for number in range(1, num_exits(architecture) + 1):
        task = checkpoints.load_task(pipeline, FLAGS.checkpoint_dir, number)
        with tempfile.NamedTemporaryFile(suffix=".tflite") as graph:
            quantization = "int8" if is_quantized(task.model) else "none"
            graph.write(convert(task.model, quantization))
            # Another process reads the file.
            graph.flush()
            with opened(DeviceSpec()) as device:
                latency_ms = device.benchmark(graph.name)["median_ms"]
        metrics = evaluate_pipeline(task, pipeline)
        accuracy = {display_name(task.objective): metrics[task.objective]}
        exits.append({"exit": number, "latency_ms": latency_ms} | accuracy | metrics)
    return exits


def print_exits(exits: list[dict[str, Any]]) -> None:
    if FLAGS.output:
        files.write(FLAGS.output, json.dumps({"exits": exits}, indent=2) + "\n")
    if FLAGS.format == "json":
        command.print_json({"exits": exits})
        return
    for of_exit in exits:
        print(
            f"exit {of_exit['exit']}  mAP {of_exit['mAP']:.4f}  {of_exit['latency_ms']:.3f} ms on "
            "this host"
        )


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()

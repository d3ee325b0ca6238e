"""Evaluates a detector or classifier on the evaluation set: a checkpoint, a SavedModel or a TFLite
file.

  python scripts/evaluate.py --pipeline_config_path=runs/bccd/pipeline.config \\
    --checkpoint_dir=runs/bccd/best --report_dir=runs/bccd/evaluation
  python scripts/evaluate.py --pipeline_config_path=runs/bccd/pipeline.config \\
    --saved_model_path=runs/bccd/exported
  python scripts/evaluate.py --pipeline_config_path=runs/bccd/pipeline.config \\
    --tflite_path=runs/bccd/tflite/detect.tflite

A classifier has its top-1 and top-5. A detector has COCO's metrics, over all classes and of every
class. Beside them stands what the best constant boxes reach: for each class one fixed box on every
picture, chosen on the evaluation set itself (ConstantBoxes_…). A model that is level with them has
learnt nothing but where objects usually are. In JSON, -1 stands for what cannot be measured, such
as the mAP of large objects where there are none.

--report_dir writes a page, index.html, with precision-recall curves, the confusion of classes and
pictures, and the same as numbers in evaluation.json. --detections_path writes all detections as
COCO's JSON of results, by the source_id of the images, for pycocotools or COCO's server. Where the
ids of an annotation file's categories start at 0, those of the results are one higher. Images
without labels will do for that:

  python scripts/evaluate.py --pipeline_config_path=runs/coco/pipeline.config \\
    --checkpoint_dir=runs/coco/best --eval_input='data/coco_test-dev.record*' \\
    --detections_path=detections_test-dev2017_mine_results.json

A detector that was trained with a predictor after every repeat of its pyramid (deep_supervision)
may stop at any of them: --every_exit gives the mAP of each and its latency on this host.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from absl import flags

from mnasdet import files
from mnasdet.errors import UserError
from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_pipeline_flags()
command.define_format_flag()
flags.DEFINE_string("checkpoint_dir", None, "Folder of a training run, or one checkpoint.")
flags.DEFINE_string(
    "saved_model_path",
    None,
    "Folder from export_saved_model, or another SavedModel with the OD API's outputs.",
)
flags.DEFINE_string("tflite_path", None, "A file from export_tflite.")
flags.DEFINE_string("output", None, "Where to write the metrics as JSON as well.")
flags.DEFINE_string(
    "detections_path", None, "Where to write a detector's detections, as COCO's JSON of results."
)
flags.DEFINE_string("report_dir", None, "Folder of a page about a detector; made if missing.")
flags.DEFINE_float(
    "score_threshold",
    None,
    "Of the confusion in --report_dir: the least score of a detection. The one with the highest F1 "
    "if left out.",
    lower_bound=0.0,
    upper_bound=1.0,
)
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
    check_flags()
    pipeline = command.load_pipeline(readers=("eval_input_reader",))
    if pipeline.model.HasField("classification"):
        check_flags_of_classifier()
    if pipeline.model.HasField("faster_rcnn") and FLAGS.every_exit:
        raise UserError("--every_exit is for detectors of one stage; two stages have one exit")
    if FLAGS.every_exit:
        print_exits(evaluate_exits(pipeline))
        return

    # Only here: what is wrong with the flags or the config is told before TensorFlow loads.
    from mnasdet import config, deployment
    from mnasdet.data import input_pipeline
    from mnasdet.evaluation import baseline
    from mnasdet.evaluation.evaluate import judged_on
    from mnasdet.reporting.examples import Collector
    from mnasdet.training import runtime

    runtime.log_devices()
    kind = config.resolve(pipeline).kind
    if FLAGS.tflite_path:
        deployment.check_tflite(kind)
    labels = input_pipeline.label_map(pipeline.eval_input_reader[0])
    check_labels(labels)
    evaluator: Any = Collector(labels) if FLAGS.report_dir else deployment.evaluator(kind, labels)
    judged_on(pipeline, evaluator, *predictor(pipeline))
    if FLAGS.detections_path and not evaluator.coco.num_objects:
        write_detections(evaluator.coco)
        command.print_metrics({}, FLAGS.output)
        tell(
            f"no metrics{' and no report' if FLAGS.report_dir else ''}: the evaluation set has no "
            "objects to find"
        )
        return
    metrics = evaluator.metrics(per_category=True, all_per_category=True, with_baseline=True)
    if baseline.verdict(metrics):
        metrics["ConstantBoxes_Level"] = baseline.is_level(metrics)
    command.print_metrics(metrics, FLAGS.output)
    if FLAGS.report_dir:
        write_report(evaluator, metrics)
    # Last: ids that cannot be written shall not cost the metrics.
    if FLAGS.detections_path:
        write_detections(evaluator.coco)


def check_flags() -> None:
    models = [FLAGS.checkpoint_dir, FLAGS.saved_model_path, FLAGS.tflite_path]
    if sum(map(bool, models)) != 1:
        raise UserError("give one of --checkpoint_dir, --saved_model_path and --tflite_path")
    if not FLAGS.checkpoint_dir and (FLAGS.every_exit or FLAGS["exit"].value):
        raise UserError("--exit and --every_exit need --checkpoint_dir; an exported file has one")
    if FLAGS.score_threshold is not None and not FLAGS.report_dir:
        raise UserError("--score_threshold: needs --report_dir")
    for name in ("report_dir", "detections_path"):
        if FLAGS.every_exit and FLAGS[name].value:
            raise UserError(f"--{name}: needs one model; --exit chooses one, --every_exit has many")


def check_flags_of_classifier() -> None:
    if FLAGS.every_exit or FLAGS["exit"].value:
        raise UserError("--exit and --every_exit are for detectors; a classifier has one exit")
    for name in ("report_dir", "detections_path"):
        if FLAGS[name].value:
            raise UserError(f"--{name}: is for detectors; a classifier finds no boxes")


def check_labels(labels: dict[int, str]) -> None:
    """Compares the classes of an exported model with those of the evaluation set.

    Other names for its classes would give metrics that are wrong and plausible.
    """
    from mnasdet.data import label_map
    from mnasdet.tflite import interpreter

    if FLAGS.checkpoint_dir:
        return  # Loading it compares.
    if FLAGS.saved_model_path:
        # The export's folder, or saved_model/ in it.
        model = Path(FLAGS.saved_model_path).resolve()
        paths = [folder / "label_map.pbtxt" for folder in (model, model.parent)]
        held = next((label_map.load(path) for path in paths if path.exists()), {})
    else:
        held = interpreter.labels(FLAGS.tflite_path)
    if held and (differences := list(label_map.differences(held, labels, "the model"))):
        path = FLAGS.saved_model_path or FLAGS.tflite_path
        raise UserError(
            f"{path}: was trained for other classes: {differences[0]}; give the --label_map that "
            "it was trained with"
        )


def predictor(pipeline):
    """Returns a function from images to what the model finds, and how it has them resized."""
    import tensorflow as tf

    from mnasdet import config, deployment
    from mnasdet.training import checkpoints

    if FLAGS.saved_model_path:
        kind = config.resolve(pipeline).kind
        return deployment.saved_model_function(kind, FLAGS.saved_model_path), None
    if FLAGS.tflite_path:
        blueprint = config.resolve(pipeline)
        return deployment.predict_function(blueprint, FLAGS.tflite_path), blueprint.resizer
    task = checkpoints.load_task(pipeline, FLAGS.checkpoint_dir, FLAGS["exit"].value)
    return tf.function(task.predict, autograph=False), task.blueprint.resizer


def write_detections(found) -> None:
    from mnasdet.evaluation import results_file

    results_file.write(FLAGS.detections_path, found)
    tell(f"{FLAGS.detections_path}: {len(found.detections)} detections, {len(found.images)} images")


def write_report(collector, metrics: dict[str, Any]) -> None:
    from mnasdet.evaluation.confusion import confusion_matrix
    from mnasdet.reporting import evaluation_page

    judged = collector.judgement(metrics)
    found = collector.coco
    score = judged.threshold.score if FLAGS.score_threshold is None else FLAGS.score_threshold
    model = FLAGS.checkpoint_dir or FLAGS.saved_model_path or FLAGS.tflite_path
    path = evaluation_page.write(
        Path(FLAGS.report_dir), model, judged, found.curves(), confusion_matrix(found, score)
    )
    tell(f"report: {path}")


def tell(line: str) -> None:
    """Prints a line, unless standard output is for JSON."""
    if FLAGS.format == "text":
        print(line)


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

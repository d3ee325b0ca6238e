"""Exports a trained model to TFLite: detect.tflite, anchors.npy and export.json of a detector,
classify.tflite of a classifier.

A detector's graph takes one image and gives the raw box encodings and class scores by name, or,
with --nms, detections; export.json says how to read them and how far the raw ones are from Keras'
on images of the evaluation set. The file itself has TFLite metadata, with the label map, for phone
apps.

With --nms export.json also has the suppression, what the file takes for a picture with it and
without, and its mAP beside Keras', the latter unasked only for 200 images or fewer.

  python scripts/export_tflite.py --pipeline_config_path=runs/bccd/pipeline.config \\
    --checkpoint_dir=runs/bccd/best --output_dir=runs/bccd/tflite
  python scripts/export_tflite.py --pipeline_config_path=runs/bccd/pipeline.config \\
    --checkpoint_dir=runs/bccd/best --output_dir=runs/bccd/int8 --quantization=int8 \\
    --input_type=uint8 --nms --max_drop=0.01

int8 and int16x8 take the ranges of activations from pictures of the training set.
"""

from __future__ import annotations

from absl import flags, logging

from mnasdet.errors import ConfigError, UserError
from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_pipeline_flags()
command.define_format_flag()
command.define_required("checkpoint_dir", "Folder of a training run, or one checkpoint.")
command.define_required("output_dir", "Folder of the files; made if missing.")
flags.DEFINE_enum(
    "quantization",
    "none",
    ["none", "fp16", "dynamic", "int8", "int16x8"],
    "Of the weights: fp16 halves the file, dynamic (int8) quarters it. Of the activations, too: "
    "int8, and int16x8 with activations of 16 bits.",
)
flags.DEFINE_enum(
    "input_type",
    "float32",
    ["float32", "uint8"],
    "Of the image: float32 in [-1, 1], or uint8, the pixels as they are.",
)
flags.DEFINE_bool(
    "nms", False, "End the graph with non-maximum suppression: TFLite_Detection_PostProcess."
)
flags.DEFINE_float(
    "nms_score_threshold",
    None,
    "Of --nms: what scores less is no detection. The config's if left out, but at least 0.02: all "
    "that is above costs time.",
    lower_bound=0.0,
    upper_bound=1.0,
)
flags.DEFINE_enum(
    "nms_type",
    None,
    ["regular", "fast"],
    "Of --nms: regular goes class by class. fast goes over all classes at once, so that objects of "
    "different classes that overlap suppress one another. The config's if left out.",
)
flags.DEFINE_integer(
    "num_calibration_images",
    128,
    "Images that int8 and int16x8 take the ranges of activations from, the first of the set.",
    lower_bound=1,
)
flags.DEFINE_enum("calibration_set", "train", ["train", "eval"], "The reader they come from.")
flags.DEFINE_bool(
    "compare",
    False,
    "Evaluate Keras, the exported file and its float32, fp16 and int8 kin on the evaluation set.",
)
flags.DEFINE_float(
    "max_drop",
    None,
    "Compare, and end with status 1 if the exported file's mAP is further below Keras'.",
)
flags.DEFINE_alias("max_map_drop", "max_drop")
flags.DEFINE_bool(
    "layer_errors",
    False,
    "Put the five layers that int8 or int16x8 harms most into export.json.",
)
flags.DEFINE_integer(
    "exit",
    0,
    "The repeat of the pyramid, from 1, whose predictor detects; 0: the last.",
    lower_bound=0,
)


def main() -> None:
    check_flags()
    compares = FLAGS.compare or FLAGS.max_drop is not None
    calibrates = compares or FLAGS.quantization in ("int8", "int16x8")
    # Nothing else looks at training pictures: without calibration, a config may name none.
    trained_on = ("train_input_reader",) if calibrates and FLAGS.calibration_set == "train" else ()
    pipeline = command.load_pipeline(readers=("eval_input_reader", *trained_on))

    # Only here: what is wrong with the flags or the config is told before TensorFlow loads.
    from mnasdet import config, deployment
    from mnasdet.data import input_pipeline
    from mnasdet.evaluation import metric_text
    from mnasdet.evaluation.evaluate import first_images
    from mnasdet.tflite import accuracy
    from mnasdet.tflite.convert import is_quantized
    from mnasdet.tflite.export import NUM_PARITY_IMAGES, write_description
    from mnasdet.training import runtime
    from mnasdet.training.checkpoints import load_task

    deployment.check_tflite(config.resolve(pipeline).kind)
    runtime.log_devices()
    task = load_task(pipeline, FLAGS.checkpoint_dir, FLAGS["exit"].value)
    resizer = task.blueprint.resizer
    kind = {
        "quantization": FLAGS.quantization,
        "input_type": FLAGS.input_type,
        "nms": FLAGS.nms,
        "nms_score_threshold": FLAGS.nms_score_threshold,
        "nms_type": FLAGS.nms_type,
        "calibration_images": None,
    }
    # Quantisation-aware training has learnt the ranges: there is nothing to calibrate.
    if is_quantized(task.model):
        if FLAGS.layer_errors:
            raise UserError("--layer_errors: a detector trained with graph_rewriter rounds itself")
    elif calibrates:
        kind["calibration_images"] = first_images(
            pipeline, resizer, FLAGS.num_calibration_images, training=bool(trained_on)
        )
    logging.info("exporting quantization %s", FLAGS.quantization)
    description = deployment.export(
        task,
        FLAGS.output_dir,
        images=first_images(pipeline, resizer, NUM_PARITY_IMAGES),
        labels=input_pipeline.label_map(pipeline.eval_input_reader[0]),
        with_layer_errors=FLAGS.layer_errors,
        **kind,
    )
    if compares or (FLAGS.nms and accuracy.is_quick(pipeline)):
        others = accuracy.COMPARED if compares else ()
        graph = f"{FLAGS.output_dir}/{description['graph']}"
        description["accuracy"] = deployment.compare(task, pipeline, graph, others=others, **kind)
        write_description(FLAGS.output_dir, description)
    if FLAGS.format == "json":
        command.print_json(description)
    else:
        print_description(description, metric_text.display_name(task.objective))
    # Last: the files and their figures are there even where the drop is refused.
    if FLAGS.max_drop is not None:
        check_drop(description["accuracy"], metric_text.display_name(task.objective))


def check_flags() -> None:
    for name in ("nms_score_threshold", "nms_type"):
        if FLAGS[name].value is not None and not FLAGS.nms:
            raise ConfigError(f"--{name}: needs --nms")


def print_description(description: dict, objective: str) -> None:
    graph = description["graph"]
    difference = max(description["parity"]["max_abs_difference"].values())
    print(
        f"{FLAGS.output_dir}/{graph}: {description['bytes'][graph] / 1e6:.2f} MB, converted in "
        f"{description['conversion_seconds']:.1f} s, at most {difference:.1e} from Keras"
    )
    if "suppression" in description:
        print_suppression(description)
    for layer in description.get("layer_errors", []):
        print(f"{layer['relative_error']:8.4f}  {layer['tensor']}")
    for name, of_file in description.get("accuracy", {}).items():
        line = f"{name:8} {objective} {of_file[objective]:.4f}"
        if "drop" in of_file:
            line += f"  drop {of_file['drop']:7.4f}  {of_file['bytes'] / 1e6:6.2f} MB"
        print(line)


def print_suppression(description: dict) -> None:
    suppression, latency_ms = description["suppression"], description["latency_ms"]
    print(
        f"suppression: {suppression['type']}, scores above {suppression['score_threshold']:g}; "
        f"{latency_ms['with_suppression']:.3f} ms a picture with it, "
        f"{latency_ms['network']:.3f} ms without, on this machine"
    )


def check_drop(accuracy: dict[str, dict], objective: str) -> None:
    drop = accuracy[FLAGS.quantization]["drop"]
    if drop > FLAGS.max_drop:
        raise UserError(
            f"{objective} drops by {drop:.4f}, from Keras' {accuracy['keras'][objective]:.4f} to "
            f"{accuracy[FLAGS.quantization][objective]:.4f}; --max_drop allows "
            f"{FLAGS.max_drop:g}; the files in {FLAGS.output_dir} are kept"
        )


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()

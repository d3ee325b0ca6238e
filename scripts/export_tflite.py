"""Exports a trained detector to TFLite: detect.tflite, anchors.npy and export.json.

The graph takes one image and gives the raw box encodings and class scores by name; export.json
says how to read them and how far they are from Keras' on images of the evaluation set.

  python scripts/export_tflite.py --pipeline_config_path=runs/bccd/pipeline.config \\
    --checkpoint_dir=runs/bccd/best --output_dir=runs/bccd/tflite
"""

from __future__ import annotations

from absl import flags

from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_pipeline_flags()
command.define_format_flag()
flags.DEFINE_string(
    "checkpoint_dir", None, "Folder of a training run, or one checkpoint.", required=True
)
flags.DEFINE_string("output_dir", None, "Folder of the files; made if missing.", required=True)
flags.DEFINE_enum(
    "quantization",
    "none",
    ["none", "fp16", "dynamic", "int8"],
    "Of the weights: fp16 halves the file, dynamic (int8) quarters it. int8: of weights and "
    "activations, of a detector that was trained with graph_rewriter.",
)
flags.DEFINE_integer(
    "exit",
    0,
    "The repeat of the pyramid, from 1, whose predictor detects; 0: the last.",
    lower_bound=0,
)


def main() -> None:
    pipeline = command.load_pipeline(readers=("eval_input_reader",))

    from mnasdet.evaluation.evaluate import first_images
    from mnasdet.tflite.export import NUM_PARITY_IMAGES, export
    from mnasdet.training.checkpoints import load_detector

    detector = load_detector(pipeline, FLAGS.checkpoint_dir, FLAGS["exit"].value)
    images = first_images(pipeline, NUM_PARITY_IMAGES)
    description = export(detector, FLAGS.output_dir, images=images, quantization=FLAGS.quantization)
    if FLAGS.format == "json":
        command.print_json(description)
        return
    graph = description["graph"]
    difference = max(description["parity"]["max_abs_difference"].values())
    print(
        f"{FLAGS.output_dir}/{graph}: {description['bytes'][graph] / 1e6:.2f} MB, converted in "
        f"{description['conversion_seconds']:.1f} s, at most {difference:.1e} from Keras"
    )


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()

"""Exports a trained detector to TFLite: detect.tflite, anchors.npy and export.json.

The graph takes one image and gives the raw box encodings and class scores by name; export.json
says how to read them and how far they are from Keras' on images of the evaluation set.

  python scripts/export_tflite.py --pipeline_config_path=configs/digits.config \\
      --checkpoint_dir=runs/digits --output_dir=runs/digits/tflite
"""

from __future__ import annotations

from absl import flags, logging

from scripts import command

FLAGS = flags.FLAGS
_NUM_PARITY_IMAGES = 4


def define_flags() -> None:
    command.define_pipeline_flags()
    flags.DEFINE_string("checkpoint_dir", None, "Folder of a training run, or a checkpoint.")
    flags.DEFINE_string("output_dir", None, "Where the files go.")
    flags.DEFINE_enum(
        "quantization",
        "none",
        ["none", "fp16", "dynamic"],
        "Of the weights: fp16 halves the file, dynamic (int8 weights) quarters it.",
    )
    command.define_format_flag()
    flags.mark_flags_as_required(["pipeline_config_path", "checkpoint_dir", "output_dir"])


def main() -> None:
    pipeline = command.load_pipeline()
    from mnasdet.data import input_pipeline
    from mnasdet.tflite.export import export
    from mnasdet.training.checkpoints import load_detector

    detector = load_detector(pipeline, FLAGS.checkpoint_dir)
    dataset = input_pipeline.evaluation_dataset(
        pipeline.eval_input_reader[0],
        image_size=detector.image_size,
        batch_size=_NUM_PARITY_IMAGES,
    )
    images = next(iter(dataset))["image"].numpy()
    description = export(
        detector, FLAGS.output_dir, images=images, quantization=FLAGS.quantization
    )
    if FLAGS.format == "json":
        command.print_json(description)
        return
    parity = max(description["parity"]["max_abs_difference"].values())
    logging.info("converted in %.1f s", description["conversion_seconds"])
    print(
        f"{FLAGS.output_dir}/{description['graph']}: "
        f"{description['bytes'][description['graph']] / 1e6:.2f} MB, "
        f"at most {parity:.1e} from Keras on {len(images)} images"
    )


def cli() -> None:
    define_flags()
    command.run(main)


if __name__ == "__main__":
    cli()

"""Exports a trained model as a SavedModel, for TensorFlow Serving and programs in TensorFlow.

OUTPUT_DIR/saved_model takes pictures of any size: resizing, padding and normalisation are inside,
as in evaluation. Beside it lie pipeline.config, label_map.pbtxt and export.json, which describes
inputs and outputs; the folder appears whole, in place of an older export.

Names are those of the OD API's exporter. The input is input_tensor; the outputs of a detector are
detection_boxes (ymin, xmin, ymax, xmax, normalised to the picture), detection_classes (from 1),
detection_scores and num_detections, detection_multiclass_scores, detection_anchor_indices,
raw_detection_boxes and raw_detection_scores; those of a classifier are classes (the best five, from
1), their scores, and probabilities. The signature serving_default takes what --input_type says;
each input type also has a signature of its own name.

  python scripts/export_saved_model.py --pipeline_config_path=runs/bccd/pipeline.config \\
    --checkpoint_dir=runs/bccd/best --output_dir=runs/bccd/exported
  python scripts/export_saved_model.py --pipeline_config_path=runs/bccd/pipeline.config \\
    --checkpoint_dir=runs/bccd/best --output_dir=runs/bccd/serving \\
    --input_type=encoded_image_string_tensor
"""

from __future__ import annotations

from absl import flags, logging

from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_pipeline_flags()
command.define_format_flag()
command.define_required("checkpoint_dir", "Folder of a training run, or one checkpoint.")
command.define_required("output_dir", "Folder of the export; an older export in it is replaced.")
flags.DEFINE_enum(
    "input_type",
    "image_tensor",
    ["image_tensor", "float_image_tensor", "encoded_image_string_tensor", "tf_example"],
    "Of the signature serving_default: image_tensor, uint8 [batch, height, width, 3]; "
    "float_image_tensor, the same as float32, 0 to 255; encoded_image_string_tensor, JPEG or PNG "
    "files; tf_example, serialised tf.Examples with image/encoded.",
)
flags.DEFINE_integer(
    "exit",
    0,
    "The repeat of the pyramid, from 1, whose predictor detects; 0: the last.",
    lower_bound=0,
)


def main() -> None:
    pipeline = command.load_pipeline(readers=("eval_input_reader",))

    # Only here: what is wrong with the flags or the config is told before TensorFlow loads.
    from mnasdet import deployment
    from mnasdet.data import input_pipeline
    from mnasdet.training import runtime
    from mnasdet.training.checkpoints import load_task

    runtime.log_devices()
    task = load_task(pipeline, FLAGS.checkpoint_dir, FLAGS["exit"].value)
    logging.info("exporting to %s", FLAGS.output_dir)
    description = deployment.export_saved_model(
        task,
        pipeline,
        FLAGS.output_dir,
        labels=input_pipeline.label_map(pipeline.eval_input_reader[0]),
        input_type=FLAGS.input_type,
    )
    if FLAGS.format == "json":
        command.print_json(description)
        return
    megabytes = sum(description["bytes"].values()) / 1e6
    print(f"{FLAGS.output_dir}/saved_model: {megabytes:.2f} MB")
    signature = description["signatures"][FLAGS.input_type]
    for name, tensor in [("input_tensor", signature["input"]), *signature["outputs"].items()]:
        shape = ", ".join("?" if size is None else str(size) for size in tensor["shape"])
        print(f"  {name}: {tensor['dtype']} [{shape}]")


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()

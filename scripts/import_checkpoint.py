"""Makes a checkpoint of mnasdet from the weights of another program.

They are put into the model of a pipeline config, as a training does that starts from them. The
folder gets the checkpoint, ckpt-0, with pipeline.config, architecture.textproto and, where the
config names one, the label map. What is read: .safetensors files with torchvision's or timm's
names, Keras' .h5, .weights.h5 and .keras files of keras.applications, and TensorFlow's checkpoints.

  python scripts/import_checkpoint.py --pipeline_config_path=configs/mnasnet_a1_imagenet.config \\
    --checkpoint=semnasnet_100.safetensors --output_dir=runs/mnasnet_a1

By default all of the model's parts that the file has must match whole; train_config's
fine_tune_checkpoint_type says which parts those are.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from absl import flags

from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_pipeline_flags()
command.define_format_flag()
command.define_required("checkpoint", "The weights: a file, or a checkpoint or its folder.")
command.define_required("output_dir", "Folder of the checkpoint; made if missing.")
flags.DEFINE_float(
    "min_matched_share",
    None,
    "The least share of variables that has to match, in place of train_config.min_matched_share.",
    lower_bound=0.0,
    upper_bound=1.0,
)


def main() -> None:
    pipeline = command.load_pipeline(
        readers=(), fine_tune_checkpoint=FLAGS.checkpoint, change=apply_flags
    )

    # Only here: what is wrong with the flags or the config is told before TensorFlow loads.
    from mnasdet.training.warm_start.importing import import_checkpoint

    report = import_checkpoint(pipeline, Path(FLAGS.output_dir))
    if FLAGS.format == "json":
        command.print_json(dataclasses.asdict(report))
    else:
        print(f"{FLAGS.output_dir}: {report.summary}")


def apply_flags(pipeline) -> None:
    """Puts the flags in the place of the config's fields."""
    if FLAGS.min_matched_share is not None:
        pipeline.train_config.min_matched_share = FLAGS.min_matched_share


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()

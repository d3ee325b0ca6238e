"""Trains a detector or a classifier and evaluates it, in one process.

Writes to --model_dir: checkpoints, the best one in best/, TensorBoard events, metrics.json, and the
config (pipeline.config), label map and architecture that were used. Run again, it goes on from the
newest checkpoint. SIGTERM and Ctrl-C end it after the step in hand, which is saved.

  python scripts/train.py --pipeline_config_path=configs/mnasfpn_mobilenet_v2_bccd.config \\
    --model_dir=runs/bccd --train_input='data/bccd_train*' --eval_input='data/bccd_val*' \\
    --label_map=data/bccd_label_map.pbtxt
"""

from __future__ import annotations

from absl import flags

from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_pipeline_flags()
command.define_format_flag()
command.define_required("model_dir", "Folder of the run; made if missing.")
flags.DEFINE_string(
    "architecture",
    "",
    "Published name, text-proto file or architecture string, in place of the config's own; what "
    "its ssd message says of predictor, anchors and hyper-parameters holds for it as well.",
)
flags.DEFINE_integer(
    "num_train_steps", 0, "Training steps, in place of train_config.num_steps.", lower_bound=0
)
flags.DEFINE_string(
    "fine_tune_checkpoint",
    "",
    "Checkpoint or file of weights to start from, in place of train_config.fine_tune_checkpoint.",
)
flags.DEFINE_integer(
    "seed", 0, "Seed of the weights, the order of the images and their augmentation."
)


def main() -> None:
    pipeline = command.load_pipeline(
        architecture=FLAGS.architecture,
        fine_tune_checkpoint=FLAGS.fine_tune_checkpoint,
        change=apply_flags,
    )

    # Only here: what is wrong with the flags or the config is told before TensorFlow loads.
    from mnasdet.training import runtime, trainer

    runtime.use_threads()
    runtime.log_devices()
    metrics = trainer.train(pipeline, FLAGS.model_dir, seed=FLAGS.seed)
    command.print_metrics(metrics)


def apply_flags(pipeline) -> None:
    """Puts the flags in the place of the config's fields."""
    if FLAGS.num_train_steps:
        pipeline.train_config.num_steps = FLAGS.num_train_steps


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()

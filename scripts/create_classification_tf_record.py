"""Writes sharded TFRecords, with ImageNet's feature names, from a folder for each class.

--images_dir=pets with pets/cat/1.jpg and pets/dog/2.png has the classes cat and dog; ids count from
1 in the order of the folders' names, or are those of --label_map. A share of each class, drawn by
--seed, goes to val.record, the rest to train.record; label_map.pbtxt is written beside them. What
is no picture, or broken, is logged with its file, left out and counted.

  python scripts/create_classification_tf_record.py --images_dir=pets --output_dir=data
  python scripts/create_classification_tf_record.py --images_dir=ILSVRC/train \\
    --output_dir=imagenet --num_shards=512 --validation_fraction=0.039
"""

from __future__ import annotations

import dataclasses

from absl import flags

from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_format_flag()
command.define_required("images_dir", "Folder that has a folder of pictures for each class.")
command.define_required("output_dir", "Folder of the records and the label map; made if missing.")
flags.DEFINE_float(
    "validation_fraction",
    0.1,
    "The share of each class for val.record; 0 writes train.record alone.",
    lower_bound=0.0,
    upper_bound=0.9,
)
flags.DEFINE_integer("seed", 0, "What draws the two sets.", lower_bound=0)
flags.DEFINE_integer("num_shards", 1, "Files of train.record.", lower_bound=1, upper_bound=99999)
flags.DEFINE_string("label_map", None, "The ids of the classes; by default the folders' order.")
flags.DEFINE_enum(
    "bad_records",
    "skip",
    ["skip", "fatal"],
    "What a broken picture or another file does: be left out and counted, or end the run.",
)
flags.DEFINE_float(
    "max_lost_images",
    0.5,
    "The share of files that may be left out; above it nothing is written.",
    lower_bound=0.0,
    upper_bound=1.0,
)


def main() -> None:
    # Only here: --help and wrong flags are answered before TensorFlow loads.
    from mnasdet.data import class_folders, label_map

    summary = class_folders.convert(
        FLAGS.images_dir,
        FLAGS.output_dir,
        validation_fraction=FLAGS.validation_fraction,
        seed=FLAGS.seed,
        num_shards=FLAGS.num_shards,
        names=label_map.load(FLAGS.label_map) if FLAGS.label_map else None,
        skip_bad=FLAGS.bad_records == "skip",
        max_lost_share=FLAGS.max_lost_images,
    )
    if FLAGS.format == "json":
        command.print_json(dataclasses.asdict(summary))
    else:
        print(summary)


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()

"""Writes sharded TFRecords, with the OD API's feature names, from YOLO's txt files.

The ids of the classes are one higher than YOLO's, as 0 is the background. Polygons become the boxes
around them. A picture without a txt file is background, as YOLO takes it. What is broken is logged
with its file and line, left out and counted.

  python scripts/create_yolo_tf_record.py --images_dir=fruit/train/images \\
    --labels_dir=fruit/train/labels --classes_file=fruit/data.yaml --output_path=data/train.record
"""

from __future__ import annotations

from absl import flags

from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_record_flags()
command.define_required(
    "classes_file",
    "data.yaml, or a file with one class name a line such as classes.txt or obj.names.",
)
flags.DEFINE_string(
    "labels_dir",
    None,
    "Folder of the txt files; by default that called labels beside --images_dir, or --images_dir.",
)


def main() -> None:
    from mnasdet.data import yolo

    names, keypoint_values = yolo.classes(FLAGS.classes_file)
    labels_dir = FLAGS.labels_dir or yolo.labels_folder(FLAGS.images_dir)
    images, remarks = yolo.read(FLAGS.images_dir, labels_dir, names, keypoint_values)
    command.write_records(images, len(images), names, remarks)


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()

"""Writes sharded TFRecords, with the OD API's feature names, from Pascal VOC annotations.

Give the classes' order where it matters: ids count from 1 in the order of --classes, or are those
of --label_map, by name or display_name; without either, in alphabetical order over all of
--annotations_dir. An image's source_id is its file name without the ending. What is broken is
logged with its file, left out and counted; so is an image whose boxes are all broken.

  python scripts/create_pascal_tf_record.py --images_dir=VOC/JPEGImages \\
    --annotations_dir=VOC/Annotations --image_set=VOC/ImageSets/Main/train.txt \\
    --classes=RBC,WBC,Platelets --output_path=data/train.record
"""

from __future__ import annotations

from absl import flags

from mnasdet.errors import UserError
from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_record_flags()
command.define_required("annotations_dir", "Folder of the XML files.")
flags.DEFINE_string(
    "image_set", None, "A file of ImageSets/Main, one image name a line; without it all images."
)
flags.DEFINE_list("classes", [], "The names of the classes, that of id 1 first.")
flags.DEFINE_string("label_map", None, "The ids of the classes, in place of --classes.")


def main() -> None:
    if FLAGS.label_map and FLAGS.classes:
        raise UserError("give either --classes or --label_map")

    from mnasdet.data import label_map, pascal

    files = pascal.annotation_files(FLAGS.annotations_dir, FLAGS.image_set)
    ids: tuple[dict[str, int] | None, dict[str, int]] = (None, {})
    if FLAGS.label_map:
        names, ids = label_map.load(FLAGS.label_map), label_map.load_ids(FLAGS.label_map)
    elif FLAGS.classes:
        names = pascal.listed_classes(FLAGS.classes)
    else:
        # From the whole folder, not of the image set: all splits get the same ids.
        names = pascal.class_names(FLAGS.annotations_dir)
    images = pascal.read(files, names, *ids)
    command.write_records(images, len(files), names)


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()

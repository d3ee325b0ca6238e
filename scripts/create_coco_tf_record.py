"""Writes sharded TFRecords, with the OD API's feature names, from COCO annotations.

The category ids are kept, and crowd regions too, marked as such; ids that start at 0 become one
higher. An image's source_id is its id. What is broken is logged with its file and id, left out and
counted; so is an image whose boxes are all broken. Of a file without annotations, such as COCO's
image_info_test-dev2017.json, all images are written: evaluate writes what is found in them.

  python scripts/create_coco_tf_record.py --images_dir=coco/val2017 \\
    --annotations=coco/annotations/instances_val2017.json --output_path=data/coco_val.record \\
    --num_shards=10 --label_map_output=data/coco_label_map.pbtxt

The images that a search is rewarded by are drawn from those of the training, 7000 of train2017 in
the paper of MnasFPN. The same --seed draws the same ones:

  python scripts/create_coco_tf_record.py --images_dir=coco/train2017 \\
    --annotations=coco/annotations/instances_train2017.json \\
    --output_path=data/search_train.record --num_shards=100 --holdout=7000

writes data/search_train.record-* and, with the 7000, data/search_train_holdout.record-*.
"""

from __future__ import annotations

from absl import flags

from mnasdet.scripts import command

FLAGS = flags.FLAGS

command.define_record_flags()
command.define_required("annotations", "COCO's instances_*.json.")


def main() -> None:
    from mnasdet.data import coco

    names, images, remarks = coco.read(FLAGS.annotations)
    command.write_records(images, len(images), names, remarks)


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()

"""Writes sharded TFRecords, with the OD API's feature names, from COCO annotations.

The category ids are kept, and crowd regions too, marked as such. An image's source_id is its file
name without the ending. What is broken is logged with its file and id, left out and counted.

  python scripts/create_coco_tf_record.py --images_dir=coco/val2017 \\
    --annotations=coco/annotations/instances_val2017.json --output_path=data/coco_val.record \\
    --num_shards=10 --label_map_output=data/coco_label_map.pbtxt
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from mnasdet.scripts import command

FLAGS = flags.FLAGS

flags.DEFINE_string("images_dir", None, "Folder of the images.", required=True)
flags.DEFINE_string("annotations", None, "COCO's instances_*.json.", required=True)
flags.DEFINE_string(
    "output_path", None, "Files are named OUTPUT_PATH-00000-of-0000N.", required=True
)
flags.DEFINE_integer("num_shards", 1, "Files to write.", lower_bound=1, upper_bound=99999)
flags.DEFINE_string(
    "label_map_output", None, "Where the label map goes; beside the records as label_map.pbtxt."
)
flags.DEFINE_enum(
    "bad_records",
    "skip",
    ["skip", "fatal"],
    "What a broken image or box does: be left out and counted, or end the run.",
)


def main() -> None:
    from mnasdet.data import coco, conversion

    names, images = coco.read(FLAGS.annotations)
    summary = conversion.convert(
        images,
        total=len(images),
        images_dir=FLAGS.images_dir,
        names=names,
        output_path=FLAGS.output_path,
        num_shards=FLAGS.num_shards,
        label_map_output=FLAGS.label_map_output
        or Path(FLAGS.output_path).parent / "label_map.pbtxt",
        skip_bad=FLAGS.bad_records == "skip",
    )
    print(summary)


def cli() -> None:
    command.run(main)


if __name__ == "__main__":
    cli()

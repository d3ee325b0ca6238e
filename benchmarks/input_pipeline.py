"""Images per second of the input pipelines, ours and tf-models-official's, with nothing trained.

Both read the same records and make batches of 320x320 for a one-stage detector with nine anchors a
place: decoded, mirrored at random, scaled by 0.8 to 1.2 and cropped or padded, boxes matched to
anchors. Ours is what `mnasdet-train` draws from, theirs what RetinaNet's task does. Each
measurement has a process of its own, in turns; it starts when the pipeline has run for a while, as
tf.data tunes itself.

  python benchmarks/input_pipeline.py --input='data/train.record*' \\
    --label_map=data/label_map.pbtxt
  python benchmarks/input_pipeline.py --input='data/train.record*' \\
    --label_map=data/label_map.pbtxt --batch_size=32 --repeats=5 --format=json
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from absl import flags

from mnasdet import config, configs
from mnasdet.data import label_map
from mnasdet.scripts import command

FLAGS = flags.FLAGS

WAYS = ("mnasdet", "tf-models")
CONFIG = Path(configs.__file__).with_name("mnasfpn_mobilenet_v2_320x320_coco.config")
IMAGE_SIZE = 320
SCALES = (0.8, 1.2)
SHUFFLE_BUFFER = 512

command.define_format_flag()
flags.DEFINE_string("input", None, "Record files, as a pattern.", required=True)
flags.DEFINE_string("label_map", None, "Label map of the records.", required=True)
flags.DEFINE_integer("batch_size", 8, "Images of a batch.", lower_bound=1)
flags.DEFINE_integer("repeats", 3, "Processes of each kind.", lower_bound=1)
flags.DEFINE_float("warm_up_seconds", 5.0, "Not counted, of each process.", lower_bound=0.0)
flags.DEFINE_float("seconds", 10.0, "Counted, of each process.", lower_bound=0.1)
flags.DEFINE_enum("way", None, WAYS, "Internal: measure this one, in this process.")


def our_pipeline(pipeline) -> None:
    """Puts the benchmark's settings into a config."""
    pipeline.model.ssd.num_classes = max(label_map.load(FLAGS.label_map))
    pipeline.train_config.batch_size = FLAGS.batch_size
    pipeline.train_config.ClearField("data_augmentation_options")
    steps = pipeline.train_config.data_augmentation_options
    steps.add().random_horizontal_flip.SetInParent()
    scale = steps.add().random_scale_crop_and_pad_to_square
    scale.output_size = IMAGE_SIZE
    scale.scale_min, scale.scale_max = SCALES
    reader = pipeline.train_input_reader
    reader.shuffle_buffer_size = SHUFFLE_BUFFER
    # Theirs decodes every picture in every epoch.
    reader.cache_decoded_images = False


def ours():
    from mnasdet import models
    from mnasdet.training import runtime, training_data

    pipeline = config.load(
        CONFIG,
        train_input=[FLAGS.input],
        label_map=FLAGS.label_map,
        readers=["train_input_reader"],
        change=our_pipeline,
    )
    runtime.seed_everything(0)
    return training_data.training_set(models.build(config.resolve(pipeline)), pipeline, seed=0)


def theirs():
    from official.vision.configs import retinanet as configs
    from official.vision.tasks.retinanet import RetinaNetTask

    scale_min, scale_max = SCALES
    data = configs.DataConfig(
        input_path=FLAGS.input,
        is_training=True,
        global_batch_size=FLAGS.batch_size,
        dtype="float32",
        shuffle_buffer_size=SHUFFLE_BUFFER,
        parser=configs.Parser(
            aug_rand_hflip=True, aug_scale_min=scale_min, aug_scale_max=scale_max
        ),
    )
    model = configs.RetinaNet(
        input_size=[IMAGE_SIZE, IMAGE_SIZE, 3],
        min_level=3,
        max_level=6,
        anchor=configs.Anchor(num_scales=3, aspect_ratios=[1.0, 2.0, 0.5], anchor_size=3.0),
    )
    return RetinaNetTask(configs.RetinaNetTask(model=model)).build_inputs(data)


def images_per_second(way: str) -> float:
    batches = iter(ours() if way == "mnasdet" else theirs())
    num_batches(batches, FLAGS.warm_up_seconds)
    start = time.perf_counter()
    count = num_batches(batches, FLAGS.seconds)
    return count * FLAGS.batch_size / (time.perf_counter() - start)


def num_batches(batches, seconds: float) -> int:
    """Draws batches for so many seconds; returns how many."""
    end, count = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        next(batches)
        count += 1
    return count


def main() -> None:
    if FLAGS.way:
        print(images_per_second(FLAGS.way))
        return
    speeds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(FLAGS.repeats):
        for way in WAYS:
            done = subprocess.run(
                [sys.executable, __file__, *sys.argv[1:], f"--way={way}"],
                check=True,
                stdout=subprocess.PIPE,
            )
            # Libraries may print ahead of it.
            speeds[way].append(float(done.stdout.splitlines()[-1]))
    medians = {way: statistics.median(values) for way, values in speeds.items()}
    ratio = medians["mnasdet"] / medians["tf-models"]
    if FLAGS.format == "json":
        command.print_json({"images_per_second": speeds, "medians": medians, "ratio": ratio})
        return
    for way, values in speeds.items():
        each = ", ".join(f"{value:.0f}" for value in values)
        print(f"{way:10} {medians[way]:6.0f} images/s  ({each})")
    print(f"ratio      {ratio:6.2f}")


if __name__ == "__main__":
    command.run(main)
